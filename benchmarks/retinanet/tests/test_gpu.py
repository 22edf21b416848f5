"""A GPU's pipeline: on a GPU it finds what a CPU does. Its parts that need none are tested in test_detection.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_retinanet.dataset import Batch
from bench_retinanet.pytorch.gpu import sizes

Load = Callable[..., Any]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def test_sizes_that_are_recorded() -> None:
    assert sizes(1) == [1]
    assert sizes(20) == [1, 2, 3, 4, 6, 8, 12, 16, 20]
    for most in range(1, 70):
        found = sizes(most)
        assert found[-1] == most
        rounded = [min(size for size in found if size >= count) / count for count in range(1, most + 1)]
        assert max(rounded) <= 1.5, "what is rounded up computes what nobody reads"


@needs_gpu
@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_gpu_finds_what_a_cpu_does(
    count: int, small_files: Path, small_batch: Batch, load: Load, split: Callable[[Any], list[Any]]
) -> None:
    gpu = load("pytorch", small_files, devices=("cuda",), max_batch=6)
    cpu = load("pytorch", small_files)
    batches = [Batch(small_batch.source, (np.arange(count) + first) % 4) for first in range(5)]
    flying = [gpu.submit(batch) for batch in batches]  # more than are on the way at once
    for batch, future in zip(batches, flying, strict=True):
        for ours, theirs in zip(split(future.result()), split(cpu.submit(batch).result()), strict=True):
            assert ours.labels.tolist() == theirs.labels.tolist()
            assert np.abs(ours.scores - theirs.scores).max(initial=0) < 1e-4
            assert np.abs(ours.boxes - theirs.boxes).max(initial=0) < 0.02


@needs_gpu
def test_a_batch_of_another_process_has_memory_of_its_own(small_files: Path, small_batch: Batch, load: Load) -> None:
    gpu = load("pytorch", small_files, devices=("cuda",), max_batch=4)
    ours, theirs = (gpu.submit(batch).result() for batch in (small_batch, Batch(small_batch.source, np.arange(4))))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    with pytest.raises(ValueError, match="a batch of 5 images is larger than the largest of 4"):
        gpu.submit(Batch(small_batch.source, np.array([0, 1, 2, 3, 0])))
