"""RetinaNet on one GPU, without the load generator: `python speed/network.py FOLDER --dtype bfloat16 --batch 32`.

Whether batches of 1, 8 and so many are found as float32 finds them, how many images a second each is, in a stream and
alone, and where a full batch's time goes. Random weights and generated images, made in FOLDER at the first run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from bench_retinanet.benchmark import SYNTHETIC
from bench_retinanet.dataset import Batch, Dataset
from bench_retinanet.postprocess import Detections
from bench_retinanet.pytorch.backend import Backend
from bench_retinanet.standins.synthetic import prepare
from loadgen.contracts import BackendOptions

IMAGES = 64


def loaded(folder: Path, dtype: str, batch: int) -> Backend:
    extra = {"weights": SYNTHETIC.weights}
    options = BackendOptions(folder / "model", ("cuda",), dtype, max_batch=batch, extra=extra)
    backend = Backend(options)
    began = time.monotonic()
    said = backend.load()
    memory = torch.cuda.max_memory_allocated() / 1e9
    print(f"{said.device}, {said.dtype}: loaded in {time.monotonic() - began:.0f} s, {memory:.1f} GB", flush=True)
    return backend


def rows(count: int, first: int) -> Any:
    return (np.arange(count) + first) % IMAGES


def streamed(backend: Backend, data: Dataset, count: int, batches: int) -> float:
    """Images a second with two batches on the way, as the system under test has them."""
    flying: deque[Any] = deque()
    began = time.monotonic()
    for number in range(batches):
        flying.append(backend.submit(data.gather(rows(count, number))))
        if len(flying) > 2:
            flying.popleft().result()
    for future in flying:
        future.result()
    return count * batches / (time.monotonic() - began)


def alone(backend: Backend, batch: Batch) -> float:
    """The median milliseconds from images to detections."""
    took = []
    for _ in range(20):
        began = time.monotonic()
        backend.submit(batch).result()
        took.append(1e3 * (time.monotonic() - began))
    return statistics.median(took)


def compared(ours: Detections, exact: Detections) -> str:
    best = f"best scores {ours.scores[0]:.4f} and {exact.scores[0]:.4f}"
    return f"{len(ours.scores)} detections, {len(exact.scores)} in float32; {best}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    prepare(args.folder)
    data = Dataset(args.folder)
    data.load(range(IMAGES))
    plain = loaded(args.folder, "float32", 8)
    exact = plain.submit(data.gather(rows(8, 0))).result()
    plain.close()
    backend = loaded(args.folder, args.dtype, args.batch)
    print(compared(backend.submit(data.gather(rows(8, 0))).result(), exact))
    for count in sorted({1, 8, args.batch}):
        streamed(backend, data, count, 3)
        rate = streamed(backend, data, count, max(10, 1500 // count))
        print(
            f"batch {count}: {rate:,.0f} images/s; alone {alone(backend, data.gather(rows(count, 0))):.2f} ms",
            flush=True,
        )
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        backend.submit(data.gather(rows(args.batch, 0))).result()
        torch.cuda.synchronize()
    print(found.key_averages().table(sort_by="cuda_time_total", row_limit=30, max_name_column_width=80))
    backend.close()


if __name__ == "__main__":
    main()
