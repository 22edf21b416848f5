"""Top-1: how many images were given their own class, by the rule of the official script."""

from __future__ import annotations

from collections.abc import Iterable

from bench_resnet50.dataset import Dataset
from bench_resnet50.postprocess import decode
from loadgen.contracts import Entry, InputError, Scoring


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """`accuracy` in percent, `good` and `total` images.

    Raises InputError that names the sample if it is answered with something that is not a class.
    """
    good = total = 0
    for entry in entries:
        good += int(_class(entry) == dataset.labels[entry.index])
        total += 1
    return {"accuracy": 100.0 * good / total, "good": good, "total": total}


def _class(entry: Entry) -> int:
    try:
        return decode(entry.data)
    except ValueError as error:
        raise InputError(f"sample {entry.index}: {error}; the log is damaged or of another benchmark") from error
