"""`python -m bench_3d_unet`: the command line is the harness's, the benchmark is ours."""

from bench_3d_unet.benchmark import BENCHMARK
from loadgen.harness.cli import main

if __name__ == "__main__":
    main(BENCHMARK)
