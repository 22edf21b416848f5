"""`python -m bench_bert`: the command line is the harness's, the benchmark is ours."""

from bench_bert.benchmark import BENCHMARK
from loadgen.harness.cli import main

if __name__ == "__main__":
    main(BENCHMARK)
