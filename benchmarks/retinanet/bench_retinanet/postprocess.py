"""An answer on the wire: a row of seven float32 for each detection, 28 bytes; no detection is no bytes.

A row is the sample's index, top, left, bottom and right as shares of the image's height and width, score, class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_retinanet.dataset import Dataset
from loadgen.contracts import I64, Answers

F32: TypeAlias = npt.NDArray[np.float32]

THRESHOLD = 0.05
"""A detection's score is over this."""
PER_LEVEL = 1000
"""Detections of a level that are compared with others."""
OVERLAP = 0.5
"""Intersection over union with a better detection of the same class, from which on one is dropped."""
MOST = 300
"""Detections of an image. All four are the reference's."""
COLUMNS = 7


class Detections(NamedTuple):
    """Of a batch, one image's after another's, best first."""

    boxes: F32
    """[m, 4]: left, top, right, bottom in pixels of the model's input."""
    scores: F32
    labels: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    """[n]: of each image."""


def packed(boxes: npt.NDArray[Any], scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Detections:
    """Detections from [n, k, 4], [n, k] and [n, k]; a score of 0 is none."""
    there = scores > 0
    counts = there.sum(axis=1, dtype=np.int64)
    return Detections(boxes[there].astype(np.float32), scores[there].astype(np.float32), labels[there], counts)


def joined(parts: Sequence[Detections]) -> Detections:
    """Those of several batches as of one."""
    return Detections(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def encode(outputs: Detections, indices: I64, dataset: Dataset) -> Answers:
    """The rows of all images. Raises ValueError that names the sample if a number is not finite."""
    samples = np.repeat(indices, outputs.counts)
    rows = np.empty((len(samples), COLUMNS), np.float32)
    rows[:, 0] = samples
    rows[:, 1:5] = outputs.boxes[:, [1, 0, 3, 2]] / np.float32(dataset.image)
    rows[:, 5], rows[:, 6] = outputs.scores, outputs.labels
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise ValueError(f"a detection of sample {samples[finite.argmin()]} is not a number; check the backend")
    kept = rows[:, 5] >= np.float32(THRESHOLD)
    image = np.repeat(np.arange(len(indices)), outputs.counts)
    counts = np.bincount(image[kept], minlength=len(indices))
    return Answers(rows[kept], np.concatenate([[0], np.cumsum(counts)]) * rows.itemsize * COLUMNS)


def decode(data: bytes) -> F32:
    """[m, 7] of one answer. Raises ValueError if the bytes are not whole rows."""
    if len(data) % (4 * COLUMNS):
        raise ValueError(f"{len(data)} bytes are not rows of {COLUMNS} float32, {4 * COLUMNS} bytes each")
    return np.frombuffer(data, np.float32).reshape(-1, COLUMNS)
