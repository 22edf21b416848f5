"""An answer on the wire: int64 token ids, the first one included, without padding, and at most one </s> as its end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench_llama2_70b.dataset import Dataset
from loadgen.contracts import I64, Answers


def encode(outputs: Sequence[I64], indices: I64, dataset: Dataset) -> Answers:
    """As many ids as tokens are counted: whoever reads a log can compare the two."""
    lengths = np.array([len(ids) for ids in outputs], np.int64)
    return Answers(np.concatenate(outputs), np.concatenate([[0], np.cumsum(lengths)]) * 8, lengths)


def decode(data: bytes) -> I64:
    """The ids of one answer. Raises ValueError if the bytes are no int64 numbers."""
    if len(data) % 8:
        raise ValueError(f"{len(data)} bytes are not a list of int64 token ids of 8 bytes each")
    return np.frombuffer(data, np.int64)
