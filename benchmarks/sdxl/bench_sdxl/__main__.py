"""`python -m bench_sdxl`: the command line is the harness's, the benchmark is ours."""

from bench_sdxl.benchmark import BENCHMARK
from loadgen.harness.cli import main

if __name__ == "__main__":
    main(BENCHMARK)
