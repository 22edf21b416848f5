"""An answer on the wire: int64 labels, one a character, 8 bytes each; an empty answer is one too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_rnnt.official import ALPHABET
from loadgen.contracts import I64, Answers

Labels: TypeAlias = "npt.NDArray[np.int8]"


def encode(outputs: Sequence[Labels], indices: I64, dataset: Any) -> Answers:
    """From the labels of each utterance; their order is all that says which samples they are of."""
    ends = np.cumsum([0, *(len(labels) for labels in outputs)])
    return Answers(np.concatenate(outputs).astype(np.int64), ends * 8)


def decode(data: bytes) -> str:
    """The text of one answer. Raises ValueError if it is not made of int64 labels."""
    if len(data) % 8:
        raise ValueError(f"{len(data)} bytes are not a list of int64 labels of 8 bytes each")
    labels = np.frombuffer(data, np.int64)
    if ((labels < 0) | (labels >= len(ALPHABET))).any():
        raise ValueError(f"a label is not between 0 and {len(ALPHABET) - 1}")
    return "".join(ALPHABET[label] for label in labels.tolist())
