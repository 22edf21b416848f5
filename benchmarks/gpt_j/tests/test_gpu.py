"""The same answers on a GPU, where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_gpt_j.accuracy import score
from bench_gpt_j.benchmark import MINI
from bench_gpt_j.dataset import Dataset
from bench_gpt_j.pytorch.backend import Backend
from loadgen.contracts import BackendOptions, Entry, Scoring

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def answers(mini: Path, data: Dataset, device: str, dtype: str = "float32") -> list[Any]:
    backend = Backend(BackendOptions(mini / "model", (device,), dtype, max_batch=32, extra=MINI.model_options))
    backend.load()
    made: dict[int, Any] = {}
    added = 0
    while len(made) < data.total_count:
        new = np.arange(added, min(added + backend.room(), data.total_count))
        if len(new):
            backend.add(new, data.gather(new))
            added += len(new)
        tokens = backend.step(0.1)
        for row, request in enumerate(tokens.requests.tolist()):
            made[request] = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]
    backend.close()
    return [made[number] for number in range(data.total_count)]


def test_answers_are_those_of_a_cpu(mini: Path, mini_dataset: Dataset) -> None:
    """All but a few, where two beams are as good as each other."""
    pairs = zip(answers(mini, mini_dataset, "cuda"), answers(mini, mini_dataset, "cpu"), strict=True)
    assert sum(a.tolist() == b.tolist() for a, b in pairs) >= 310


def test_bfloat16_keeps_the_score(mini: Path, mini_dataset: Dataset) -> None:
    made = answers(mini, mini_dataset, "cuda", "bfloat16")
    entries = [Entry(number, ids.tobytes()) for number, ids in enumerate(made)]
    assert score(entries, mini_dataset, Scoring(mini))["rouge1"] > 0.99 * MINI.reference["rouge1"]
