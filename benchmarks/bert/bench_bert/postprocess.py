"""An answer on the wire: float32 [384, 2], a start and an end logit of each token, 3,072 bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_bert.dataset import Batch, Dataset, Ids
from loadgen.contracts import Answers, InputError

Logits: TypeAlias = "npt.NDArray[np.float32]"

PADDING = -10000.0
"""The logit of a token that is not there: what the official accuracy script fills short answers up with.

The official app logs what its model computes on padding instead. That changes no answer unless padding has a greater
logit than the start or end of a window's best span, and training keeps it far below (tests/test_log_format.py)."""


def full_width(start: npt.NDArray[Any], end: npt.NDArray[Any], batch: Batch) -> Logits:
    """A backend's [n, S] logits as answers [n, width, 2].

    Positions without a token get PADDING, so an answer does not depend on what it was batched with.
    """
    count, length = batch.input_mask.shape
    output = np.full((count, batch.width, 2), PADDING, np.float32)
    present = batch.input_mask != 0
    output[:, :length, 0][present] = start[:, :length][present]
    output[:, :length, 1][present] = end[:, :length][present]
    return output


def check_outputs(path: Path, logits: npt.NDArray[Any], length: int) -> None:
    """Raise InputError naming the file if a model does not give start and end logits [1, length, 2] for one row."""
    if logits.shape != (1, length, 2) or not np.isfinite(logits).all():
        what = "numbers that are not finite" if logits.shape == (1, length, 2) else f"{list(logits.shape)}"
        raise InputError(
            f"{path}: gives {what} for one row of {length} tokens, expected a start and an end logit of each: "
            "fetch it again, or use a BERT trained for SQuAD"
        )


def encode(outputs: Logits, indices: Ids, dataset: Dataset) -> Answers:
    """From answers [n, S, 2]; their order is all that says which samples they are of."""
    buffer = np.ascontiguousarray(outputs, dtype=np.float32)
    size = buffer[0].nbytes if len(buffer) else 0
    return Answers(buffer, np.arange(len(buffer) + 1) * size)


def decode(data: bytes) -> Logits:
    """[S, 2] from the bytes of one answer. Raises ValueError if they are no pairs of float32."""
    if len(data) == 0 or len(data) % 8:
        raise ValueError(f"{len(data)} bytes are not a list of (start, end) float32 pairs of 8 bytes each")
    return np.frombuffer(data, np.float32).reshape(-1, 2)
