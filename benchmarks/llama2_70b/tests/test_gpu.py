"""The same answers on a GPU, where there is one: recorded steps, 8-bit kernels, several devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_llama2_70b.accuracy import score
from bench_llama2_70b.benchmark import MINI
from bench_llama2_70b.dataset import Batch, Dataset
from bench_llama2_70b.pytorch.backend import Backend
from loadgen.contracts import BackendOptions, Entry, Scoring

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def answers(mini: Path, data: Dataset, batch: int, **options: Any) -> list[list[int]]:
    backend = Backend(BackendOptions(mini / "model", max_batch=batch, **options))
    backend.load()
    made: list[list[int]] = [[] for _ in range(data.total_count)]
    added = done = 0
    while done < len(made):
        wanted = np.arange(added, min(added + backend.room(), len(made)))
        if len(wanted):
            backend.add(wanted, Batch(*data.gather(wanted)))
            added += len(wanted)
        tokens = backend.step(0.1)
        for row, request in enumerate(tokens.requests.tolist()):
            made[request] += tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        done += int(tokens.finished.sum())
    backend.close()
    return made


def rouge1(made: list[list[int]], data: Dataset) -> float:
    entries = [Entry(n, np.array(ids, np.int64).tobytes()) for n, ids in enumerate(made)]
    return score(entries, data, Scoring(Path()))["rouge1"]


@pytest.fixture(scope="module")
def on_cpu(mini: Path, mini_dataset: Dataset) -> list[list[int]]:
    return answers(mini, mini_dataset, 64, threads=2)


@pytest.mark.parametrize("batch", [1, 20, 64])
def test_recorded_steps_give_the_same_tokens(
    batch: int, mini: Path, mini_dataset: Dataset, on_cpu: list[list[int]]
) -> None:
    """Batches between two recordings, too; a near tie may fall otherwise now and then."""
    made = answers(mini, mini_dataset, batch, devices=("cuda",))
    assert sum(a == b for a, b in zip(made, on_cpu, strict=True)) >= 316


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8"])
def test_fewer_bits_meet_the_target(dtype: str, mini: Path, mini_dataset: Dataset) -> None:
    made = answers(mini, mini_dataset, 64, devices=("cuda",), dtype=dtype)
    assert rouge1(made, mini_dataset) >= 0.99 * MINI.reference["rouge1"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two GPUs")
def test_two_gpus_give_the_same_tokens(mini: Path, mini_dataset: Dataset, on_cpu: list[list[int]]) -> None:
    made = answers(mini, mini_dataset, 64, devices=("cuda:0", "cuda:1"))
    assert sum(a == b for a, b in zip(made, on_cpu, strict=True)) >= 316
