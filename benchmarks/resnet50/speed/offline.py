"""Offline on each runtime beside the same runtime driven one image at a time: `python speed/offline.py --data FOLDER`.

ResNet-50 with random weights on generated JPEG files, made in FOLDER at the first run (533 MB). Pairs alternate, with
the same images, threads and dtype. Each runtime has a process of its own, as their pools of threads disturb each
other. Rates are by the clock; "processor time" compares the seconds that cores worked, which others on the same cores
change little, and sets Offline's beside those of a matrix product by NumPy on one core: what a core can do. 32 images
and 5 pairs take 2 minutes on 2 cores with nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench_resnet50 import postprocess
from bench_resnet50.benchmark import BENCHMARK, SYNTHETIC
from bench_resnet50.dataset import Dataset
from bench_resnet50.synthetic import prepare
from loadgen.contracts import BackendOptions
from loadgen.harness.run import import_name
from loadgen.harness.serving.batching import BatchingSystem
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings

GFLOP = 8.2
"""Of an image: 4.1 G multiplications and as many additions, in ResNet-50 v1.5's convolutions and last layer."""
SIDE = 2048


class Kept(Dataset):
    """Knows which images the last test loaded, and keeps them."""

    def load(self, indices: Sequence[int]) -> None:
        super().load(indices)
        self.order = list(indices)

    def unload(self, indices: Sequence[int]) -> None: ...


class Pair(NamedTuple):
    """Images a second by the clock and of processor time, and billions of operations a second of a matrix product."""

    offline: float
    offline_cpu: float
    alone: float
    alone_cpu: float
    gflops: float


def one_by_one(backend: Any, data: Kept) -> float:
    """Images a second."""
    began = time.perf_counter()
    for index in data.order:
        postprocess.encode(backend.submit(data.gather([index])).result())
    return len(data.order) / (time.perf_counter() - began)


def offline(backend: Any, data: Kept, samples: int, batch: int) -> float:
    """Samples a second, by the load generator's clock."""
    settings = TestSettings(
        scenario=Scenario.Offline,
        min_duration_ms=0,
        min_query_count=samples,
        performance_sample_count_override=samples,
        qsl_rng_seed=1,
    )
    system = BatchingSystem("offline", [backend], data, postprocess.encode, max_batch=batch)
    result = run(system, data, settings)
    assert not result.errors, result.errors
    rate = result.metrics["result_samples_per_second"]
    assert isinstance(rate, float)
    return rate


def product() -> float:
    """GFLOP a second of processor time; the best of three."""
    matrix = np.random.default_rng(1).random((SIDE, SIDE), np.float32)
    times = []
    for _ in range(3):
        began = time.process_time()
        matrix @ matrix
        times.append(time.process_time() - began)
    return 2e-9 * SIDE**3 / min(times)


def pair(backend: Any, data: Kept, asked: argparse.Namespace) -> Pair:
    began = time.process_time()
    offline_rate = offline(backend, data, asked.samples, asked.batch)
    middle = time.process_time()
    alone = one_by_one(backend, data)
    ended = time.process_time()
    return Pair(offline_rate, asked.samples / (middle - began), alone, asked.samples / (ended - middle), product())


def measured(name: str, asked: argparse.Namespace) -> list[Pair]:
    """All pairs of one backend, in this process."""
    options = BackendOptions(
        asked.data / "model",
        dtype=asked.dtype,
        threads=asked.threads,
        max_batch=asked.batch,
        extra=SYNTHETIC.model_options,
    )
    backend = import_name(BENCHMARK.backends[name], f"backend {name}", BENCHMARK)(options)
    backend.load()
    data = Kept(asked.data / "data")
    pairs = [pair(backend, data, asked) for _ in range(asked.pairs + 1)]
    backend.close()
    return pairs[1:]  # the first warms up


def row(name: str, pairs: Sequence[Pair]) -> str:
    """Medians, and the range of the ratios."""
    columns = np.array(pairs).T
    rate, rate_cpu, alone, alone_cpu, gflops = columns
    by_clock, by_cpu = rate / alone, rate_cpu / alone_cpu
    core = np.median(gflops)
    return (
        f"{name:12} {np.median(rate):8.1f} {np.median(alone):11.1f} {ranged(by_clock)} {ranged(by_cpu)} "
        f"{core:5.0f} GFLOP/s {np.median(rate_cpu) * GFLOP / core:6.0%}"
    )


def ranged(ratios: Any) -> str:
    return f"{np.median(ratios):6.2f}x ({ratios.min():.2f}x to {ratios.max():.2f}x)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backend", action="append", choices=list(BENCHMARK.backends), help="repeatable; else all")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    prepare(asked.data)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the matrix product, in the processes started below
    print(f"{asked.dtype}, {asked.threads} threads, {asked.samples} images, batches of {asked.batch}, images/s")
    print(
        "              Offline  one by one  ratio by the clock       ratio by processor time  a core    Offline of it"
    )
    for name in asked.backend or BENCHMARK.backends:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            print(row(name, process.submit(measured, name, asked).result()), flush=True)


if __name__ == "__main__":
    main()
