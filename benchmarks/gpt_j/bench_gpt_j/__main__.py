"""`python -m bench_gpt_j`: the command line is the harness's, the benchmark is ours."""

from bench_gpt_j.benchmark import BENCHMARK
from loadgen.harness.cli import main

if __name__ == "__main__":
    main(BENCHMARK)
