"""Top-1: how many images were given their own class, by the rule of the official script."""

from __future__ import annotations

from collections.abc import Iterable

from bench_resnet50.dataset import Dataset
from bench_resnet50.postprocess import DTYPES, decode
from loadgen.contracts import Entry, InputError, Scoring


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """`accuracy` in percent, `good` and `total` images: of those that are answered, as in the official script.

    Raises InputError that names the sample if it is answered with something that is not a class.
    """
    if at.dtype and at.dtype not in DTYPES:
        raise InputError(f"--dtype {at.dtype!r}: use one of {', '.join(DTYPES)}")
    good = total = 0
    for entry in entries:
        if at.max_examples is None or entry.index < at.max_examples:
            good += int(_class(entry, at.dtype) == dataset.labels[entry.index])
            total += 1
    if not total:
        raise InputError(f"--max-examples {at.max_examples}: none of them is answered: give a greater number")
    return {"accuracy": 100.0 * good / total, "good": good, "total": total}


def _class(entry: Entry, dtype: str) -> int:
    try:
        return decode(entry.data, dtype)
    except ValueError as error:
        raise InputError(f"sample {entry.index}: {error}; the log is damaged or of another benchmark") from error
