"""An answer on the wire: float32 [n, 2], of each pair the probability of a click and the label, 8 n bytes."""

from __future__ import annotations

import numpy as np

from bench_dlrm_v2.batch import F32
from bench_dlrm_v2.dataset import Dataset
from loadgen.contracts import I64, Answers


def encode(outputs: F32, indices: I64, dataset: Dataset) -> Answers:
    """From the probabilities of all pairs, sample after sample. Labels go with them, as in the reference, so that a log
    can be scored by itself."""
    pairs = np.empty((len(outputs), 2), np.float32)
    pairs[:, 0] = outputs
    pairs[:, 1] = dataset.labels_of(indices)
    return Answers(pairs, np.concatenate([[0], np.cumsum(dataset.costs(indices)) * 8]))


def decode(data: bytes) -> F32:
    """[n, 2] of one answer. Raises ValueError if it is no pairs of float32."""
    if len(data) == 0 or len(data) % 8:
        raise ValueError(f"{len(data)} bytes are not a list of (probability, label) float32 pairs of 8 bytes each")
    return np.frombuffer(data, np.float32).reshape(-1, 2)
