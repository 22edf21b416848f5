"""`python -m bench_bert`: the command line is the harness's, the benchmark is ours."""

from loadgen.harness.cli import main

from bench_bert.benchmark import BENCHMARK

if __name__ == "__main__":
    main(BENCHMARK)
