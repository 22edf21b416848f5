"""Top-1: how many images were given their own class, by the rule of the official script."""

from __future__ import annotations

from collections.abc import Iterable

from bench_resnet50.dataset import Dataset
from bench_resnet50.postprocess import decode
from loadgen.contracts import InputError


def score(entries: Iterable[tuple[int, bytes]], dataset: Dataset) -> dict[str, float]:
    """`accuracy` in percent, `good` and `total` images, from (sample index, answer) in any order.

    An index may come again with the same bytes. Raises InputError that names the index if one is
    missing or unknown, answered in two ways, or answered with something that is no class.
    """
    answers: dict[int, bytes] = {}
    for index, data in entries:
        if not 0 <= index < dataset.total_count:
            raise InputError(
                f"sample {index} is answered, but the dataset has {dataset.total_count} samples: "
                "score the log with the data it was made with"
            )
        if answers.setdefault(index, data) != data:
            raise InputError(f"sample {index} is answered twice, differently: score the log of one accuracy run")
    missing = [index for index in range(dataset.total_count) if index not in answers]
    if missing:
        raise InputError(
            f"{len(missing)} of {dataset.total_count} samples have no answer, first sample {missing[0]} "
            f"({dataset.files[missing[0]].name}): run accuracy mode to its end"
        )
    good = sum(_class(index, data) == dataset.labels[index] for index, data in answers.items())
    return {"accuracy": 100.0 * good / len(answers), "good": int(good), "total": len(answers)}


def _class(index: int, data: bytes) -> int:
    try:
        return decode(data)
    except ValueError as error:
        raise InputError(f"sample {index}: {error}; the log is damaged or of another benchmark") from error
