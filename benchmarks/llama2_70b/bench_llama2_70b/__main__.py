"""`python -m bench_llama2_70b`: the command line is the harness's, the benchmark is ours."""

from bench_llama2_70b.benchmark import BENCHMARK
from loadgen.harness.cli import main

if __name__ == "__main__":
    main(BENCHMARK)
