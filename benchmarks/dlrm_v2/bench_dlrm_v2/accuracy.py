"""AUC over all pairs, and what the official script prints beside it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from bench_dlrm_v2.batch import F32
from bench_dlrm_v2.dataset import Dataset
from bench_dlrm_v2.postprocess import decode
from loadgen.contracts import Entry, InputError, Scoring

_UNANSWERED = 2  # no label: those are 0 and 1
_RANKED = 1 << 20  # clicks that are ranked at a time


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """`AUC` and `accuracy` in percent, `good` of `total` pairs and `queries`, the samples.

    Answers are read one by one, into 5 bytes a pair: 446 MB for day 23, and ranked where they are. Raises InputError
    that names a sample whose answer is not of this data.
    """
    ends = np.cumsum(dataset.counts)
    probabilities = np.empty(int(ends[-1]), np.float32)
    labels = np.full(len(probabilities), _UNANSWERED, np.uint8)
    queries = 0
    for entry in entries:
        pairs = _pairs_of(entry, dataset)
        place = slice(int(ends[entry.index]) - len(pairs), int(ends[entry.index]))
        probabilities[place], labels[place] = pairs.T
        queries += 1
    if at.partial:
        answered = labels != _UNANSWERED
        probabilities, labels = probabilities[answered], labels[answered]
    if labels.min() == labels.max():
        raise InputError(f"all {len(labels)} labels are {labels[0]}: AUC needs pairs with and without a click")
    good = int(((probabilities > 0.5) == labels).sum())  # a half is rounded to none
    auc = 100.0 * area(probabilities, labels)
    return {
        "AUC": auc,
        "accuracy": 100.0 * good / len(labels),
        "good": good,
        "total": len(labels),
        "queries": queries,
    }


def area(probabilities: F32, labels: npt.NDArray[np.uint8]) -> float:
    """AUC: of all couples of a pair with a click and one without, the share where the first has the higher
    probability; equal ones count half. Sorts `probabilities` in place.

    scikit-learn's `roc_auc_score`, which the official script calls, gives the same to 1e-12 in 62 bytes a pair: 5.5 GB
    for day 23.
    """
    clicked = probabilities[labels == 1]
    probabilities.sort()
    doubled = 0  # twice the number of pairs below each click, equal ones half: more than a float tells apart
    for begin in range(0, len(clicked), _RANKED):
        some = np.sort(clicked[begin : begin + _RANKED])
        doubled += sum(int(np.searchsorted(probabilities, some, side).sum()) for side in ("left", "right"))
    clicks = len(clicked)
    return (doubled - clicks**2) / (2 * clicks * (len(probabilities) - clicks))


def _pairs_of(entry: Entry, dataset: Dataset) -> F32:
    """[n, 2] of one answer, which is of its sample's size, with its labels and with probabilities."""
    index, advice = entry.index, "score the log with the data it was made with"
    try:
        pairs = decode(entry.data)
    except ValueError as error:
        raise InputError(f"sample {index}: {error}; the log is damaged or of another benchmark") from error
    if len(pairs) != dataset.counts[index]:
        raise InputError(f"sample {index}: {len(pairs)} pairs are answered of {dataset.counts[index]}: {advice}")
    if (pairs[:, 1] != dataset.labels_of(np.array([index]))).any():
        raise InputError(f"sample {index}: its labels are not those of the data: {advice}")
    if not ((pairs[:, 0] >= 0) & (pairs[:, 0] <= 1)).all():  # not a number is neither
        raise InputError(f"sample {index}: the answer holds a probability outside of 0 to 1; check the backend")
    return pairs
