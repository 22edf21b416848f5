"""`python -m bench_dlrm_v2`: the command line is the harness's, the benchmark is ours."""

from bench_dlrm_v2.benchmark import BENCHMARK
from loadgen.harness.cli import main

if __name__ == "__main__":
    main(BENCHMARK)
