"""Do all backends give the same logits and classes? `python speed/agreement.py FOLDER`.

ResNet-50 with seeded random weights, which each backend reads from its own official format, on generated JPEG files:
those of the `synthetic` profile, made in FOLDER if they are not there (533 MB). FP32. 1,000 images on five backends
take 5 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from bench_resnet50.batch import Values
from bench_resnet50.benchmark import BENCHMARK, SYNTHETIC
from bench_resnet50.config import FILE, read_config
from bench_resnet50.dataset import Dataset
from bench_resnet50.standins.synthetic import prepare
from loadgen.contracts import BackendOptions
from loadgen.harness.plan import import_name

BATCH = 8


def shifted(logits: Values) -> Values:
    """So that the greatest of a row is 0: of the official ONNX file logits are known but for a constant a row."""
    return np.asarray(logits - logits.max(axis=1, keepdims=True))


def difference(one: Values, other: Values) -> float:
    """Of any logit, the greatest."""
    return float(np.abs(shifted(one) - shifted(other)).max())


def margin(logits: Values) -> float:
    """How far the best class is ahead of the second, at least."""
    ordered = np.partition(logits, -2, axis=1)
    return float((ordered[:, -1] - ordered[:, -2]).min())


def computed(name: str, model: Path, data: Dataset, count: int, threads: int) -> Values:
    """The dataset's first images, which are loaded, on one backend."""
    spec = BENCHMARK.backends[name]
    build = import_name(BENCHMARK, spec.name, f"backend {name}", spec.extra)
    extra = {"weights": SYNTHETIC.weights}
    backend = build(BackendOptions(model, threads=threads, max_batch=BATCH, extra=extra))
    backend.load()
    batches = (np.arange(first, min(first + BATCH, count)) for first in range(0, count, BATCH))
    logits = np.concatenate([backend.submit(data.gather(batch)).result() for batch in batches])
    backend.close()
    return np.asarray(logits)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a pair of backends. Returns 1 if two give an image different classes, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--backend", action="append", choices=list(BENCHMARK.backends), help="repeatable; else all")
    parser.add_argument("--threads", type=int, default=0, help="of each runtime; 0: its choice")
    asked = parser.parse_args(arguments)
    prepare(asked.folder)
    data = Dataset(asked.folder, image=read_config(asked.folder / "model" / FILE).image)
    count = min(asked.images, data.total_count)
    data.load(range(count))
    found = {}
    for name in asked.backend or BENCHMARK.backends:
        found[name] = computed(name, asked.folder / "model", data, count, asked.threads)
        classes = len(set(found[name].argmax(axis=1).tolist()))
        print(f"{name}: {count:,} images in {classes} classes, smallest margin {margin(found[name]):.1e}", flush=True)
    return compare(found)


def compare(found: dict[str, Values]) -> int:
    """The table and the verdict of `main`, from each backend's logits."""
    disagreeing = 0
    print(f"{'pair':28} greatest difference   smallest margin   classes that differ")
    for one, other in combinations(found, 2):
        a, b = found[one], found[other]
        differ = int((a.argmax(axis=1) != b.argmax(axis=1)).sum())
        least = min(margin(a), margin(b))
        print(f"{f'{one}, {other}':28} {difference(a, b):19.1e} {least:17.1e} {differ:21}")
        disagreeing += differ
    return int(disagreeing > 0)


if __name__ == "__main__":
    raise SystemExit(main())
