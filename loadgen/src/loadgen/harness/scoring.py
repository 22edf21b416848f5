"""Scores of an accuracy log, and their judgement by the rules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from loadgen.contracts import Dataset, Entry, InputError, Scoring
from loadgen.harness.plan import Plan
from loadgen.logs import read_accuracy
from loadgen.rules import Accuracy


def open_dataset(plan: Plan) -> Dataset[Any]:
    """Make or check the profile's files, then read its data."""
    plan.imported(plan.profile.prepare, "the profile")(plan.folder)
    build = plan.imported(plan.benchmark.dataset, "the dataset")
    opened: Dataset[Any] = build(plan.folder, **plan.profile.dataset_options)
    return opened


def score_log(plan: Plan, dataset: Dataset[Any], log: Path) -> tuple[Accuracy, ...]:
    """Score an accuracy log, write `accuracy.txt` beside it, and judge by each of the plan's ratios, lowest first.

    Raises InputError for a damaged log, or one of other samples.
    """
    module = plan.imported(plan.benchmark.accuracy, "the accuracy metric")
    at = Scoring(plan.folder, plan.device, log.parent)
    answers = entries(log, dataset.total_count)
    values = module.score(answers, dataset, at)
    for _ in answers:  # what a metric did not read is checked all the same
        pass
    (log.parent / "accuracy.txt").write_text(plan.rules.write_accuracy(values) + "\n")
    scores = {name: float(value) for name, value in values.items()}
    return tuple(_judged(plan, scores, ratio) for ratio in plan.ratios)


def _judged(plan: Plan, scores: dict[str, float], ratio: float) -> Accuracy:
    profile = plan.profile
    limits = plan.rules.limits(ratio, profile.reference)
    return Accuracy(scores, {name: profile.limits.get(name, limit) for name, limit in limits.items()}, ratio)


def entries(log: Path, count: int) -> Iterator[Entry]:
    """The answers of a log as they are read: each of `count` samples once, so that one at a time is in memory.

    An index may come again with the same bytes. Raises InputError that names the sample if one is unknown, answered in
    two ways or, at the end, missing.
    """
    seen = np.zeros(count, np.uint64)  # a digest of each answer; 0: none yet
    for entry in read_accuracy(log):
        index = entry.qsl_idx
        if not 0 <= index < count:
            raise InputError(
                f"{log}: sample {index} is answered, but the dataset has {count} samples: "
                "score the log with the data it was made with"
            )
        digest = np.uint64(int.from_bytes(hashlib.blake2b(entry.data, digest_size=8).digest(), "little") | 1)
        if seen[index] == digest:
            continue
        if seen[index]:
            raise InputError(f"{log}: sample {index} is answered twice, differently: score the log of one accuracy run")
        seen[index] = digest
        yield Entry(index, entry.data, entry.token_count, entry.token_data)
    missing = np.flatnonzero(seen == 0)
    if len(missing):
        raise InputError(
            f"{log}: {len(missing)} of {count} samples have no answer, first sample {missing[0]}: "
            "run accuracy mode to its end"
        )


def text(judged: tuple[Accuracy, ...]) -> str:
    """`f1 92.129 >= 91.207: met; 99.9 %: MISSED`: the lowest ratio in full, the others' verdicts."""
    first, *higher = judged
    return "; ".join([str(first), *(f"{100 * one.ratio:g} %: {'met' if one.met else 'MISSED'}" for one in higher)])


def find_log(given: Path) -> Path:
    """The accuracy log that a file's or a folder's path means. Raises InputError if there is none."""
    file = given / "mlperf_log_accuracy.json" if given.is_dir() else given
    if not file.is_file():
        raise InputError(f"{file} is not there: give an mlperf_log_accuracy.json or its folder")
    return file
