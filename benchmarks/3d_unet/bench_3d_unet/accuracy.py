"""Dice of kidney and tumour, as the official script has it (`accuracy_kits.py`).

Labels are compared as preprocessed, at the spacing of the model, and not as they were scanned.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from bench_3d_unet.dataset import Dataset
from bench_3d_unet.official import CLASSES
from bench_3d_unet.postprocess import decode
from bench_3d_unet.preprocess import Label
from loadgen.contracts import Entry, InputError, Scoring

SMOOTH = 1e-6
"""Added above and below (the reference's): a class that neither volume has scores 1."""


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """`kidney` and `tumor`, the mean Dice of all cases, and `mean`, that of both. One volume is in memory at a time.

    Raises InputError that names a sample whose answer is not its labels.
    """
    table = np.full((dataset.total_count, len(CLASSES) - 1), np.nan)
    for entry in entries:
        table[entry.index] = dice(labels_of(entry, dataset), dataset.label(entry.index))
    missing = np.flatnonzero(np.isnan(table).any(axis=1))
    if at.partial:
        table = np.delete(table, missing, axis=0)
    elif len(missing):
        raise InputError(f"{len(missing)} of {len(table)} cases have no answer, first {dataset.cases[missing[0]]}")
    kidney, tumor = table.mean(axis=0).tolist()
    return {"mean": (kidney + tumor) / 2, "kidney": kidney, "tumor": tumor}


def labels_of(entry: Entry, dataset: Dataset) -> Label:
    """[D, H, W] of one answer. Raises as `score`."""
    shape, labels = dataset.shape(entry.index), decode(entry.data)
    where = f"sample {entry.index} ({dataset.cases[entry.index]})"
    if labels.size != np.prod(shape):
        raise InputError(
            f"{where}: {labels.size:,} bytes, expected a label for each of {' x '.join(map(str, shape))} voxels: "
            "the log is damaged or of other data"
        )
    if labels.size and labels.max() >= len(CLASSES):
        raise InputError(f"{where}: the answer has a label {labels.max()}, expected 0, 1 or 2: check the backend")
    return labels.reshape(shape)


def dice(found: Label, truth: Label) -> npt.NDArray[np.float64]:
    """[2]: of kidney and of tumour."""
    scores = []
    for kind in range(1, len(CLASSES)):
        ours, theirs = found == kind, truth == kind
        total = np.count_nonzero(ours) + np.count_nonzero(theirs)
        scores.append((2.0 * np.count_nonzero(ours & theirs) + SMOOTH) / (total + SMOOTH))
    return np.array(scores)
