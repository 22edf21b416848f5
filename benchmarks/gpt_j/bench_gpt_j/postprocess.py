"""An answer on the wire: int64 ids of the tokens after the prompt, without padding, and at most one end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench_gpt_j.dataset import Dataset
from loadgen.contracts import I64, Answers


# Twin of: benchmarks/llama2_70b/bench_llama2_70b/postprocess.py::encode
def encode(outputs: Sequence[I64], indices: I64, dataset: Dataset) -> Answers:
    """As many ids as tokens are counted: whoever reads a log can compare the two."""
    lengths = np.array([len(ids) for ids in outputs], np.int64)
    return Answers(np.concatenate(outputs), np.concatenate([[0], np.cumsum(lengths)]) * 8, lengths)


# Twin of: benchmarks/llama2_70b/bench_llama2_70b/postprocess.py::decode
def decode(data: bytes) -> I64:
    """The ids of one answer. Raises ValueError if the bytes are no int64 numbers."""
    if len(data) % 8:
        raise ValueError(f"{len(data)} bytes are not a list of int64 token ids of 8 bytes each")
    return np.frombuffer(data, np.int64)
