"""Scores of an accuracy log, their judgement by the rules, and the `accuracy` command."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from loadgen.contracts import Dataset, Entry, InputError, Scoring
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.plan import Plan
from loadgen.harness.report import screen
from loadgen.logs import in_folder, read_accuracy
from loadgen.progress import Progress
from loadgen.rules import Accuracy

_SHOWN_EACH_S = 0.25


def open_dataset(plan: Plan, needs_model: bool = True) -> Dataset[Any]:
    """Make or check the profile's files, then read its data. A score needs no official weights: they may be missing."""
    prepare = plan.imported(plan.profile.prepare, "the profile")
    build = plan.imported(plan.benchmark.dataset, "the dataset")
    if not needs_model and plan.profile.is_official:
        try:
            scored: Dataset[Any] = build(plan.folder, **plan.profile.dataset_options)
            return scored
        except (OSError, InputError):
            if any((plan.folder / "data").glob("*")):  # what is wrong with them, not which weights are missing
                raise
    prepare(plan.folder)
    opened: Dataset[Any] = build(plan.folder, **plan.profile.dataset_options)
    return opened


@dataclass(frozen=True)
class LogOptions:
    """What the command `accuracy` is told of a log; see `Scoring`."""

    dtype: str = ""
    transposed: bool = False
    max_examples: int | None = None
    partial: bool = False
    """May samples be missing?"""

    @property
    def is_whole(self) -> bool:
        """Is a score of all samples asked for, which can be judged?"""
        return not self.partial and self.max_examples is None

    def check(self, benchmark: Benchmark) -> None:
        """Raise InputError for an option that the benchmark's metric does not follow."""
        for name in (field.name for field in fields(self) if getattr(self, field.name) != field.default):
            if name not in benchmark.scoring:
                known = ", ".join(f"--{one.replace('_', '-')}" for one in benchmark.scoring) or "none of its kind"
                raise InputError(f"--{name.replace('_', '-')}: the metric of {benchmark.name} follows {known}")


def score_existing(plan: Plan, log: Path, told: LogOptions) -> int:
    """The `accuracy` command: score a log that an earlier run, or another system, wrote. Returns the exit code.

    The score of a part of the samples is not judged, and lies in `accuracy-partial.txt`."""
    told.check(plan.benchmark)
    file, dataset, out = find_log(log), open_dataset(plan, needs_model=False), screen.console(plan.request.quiet)
    if told.is_whole:
        judged = score_log(plan, dataset, file, out, told)
        out.print(text(judged))
        return int(not judged[0].met)
    values, answered = _values(plan, dataset, file, out, told)
    line = plan.rules.write_accuracy(values)
    (file.parent / "accuracy-partial.txt").write_text(line + "\n")
    first = "" if told.max_examples is None else f", of the first {told.max_examples:,} examples alone"
    out.print(
        f"not a result: scored{first}, with {answered:,} of {dataset.total_count:,} samples answered", markup=False
    )
    out.print(line, markup=False, highlight=False)
    return 0


def score_log(
    plan: Plan, dataset: Dataset[Any], log: Path, out: Console, told: LogOptions = LogOptions()
) -> tuple[Accuracy, ...]:
    """Score an accuracy log, write `accuracy.txt` beside it, and judge by each of the plan's ratios, lowest first.

    Raises InputError for a damaged log, or one of other samples.
    """
    values, _ = _values(plan, dataset, log, out, told)
    (log.parent / "accuracy.txt").write_text(plan.rules.write_accuracy(values) + "\n")
    scores = {name: float(value) for name, value in values.items()}
    return tuple(_judged(plan, scores, ratio) for ratio in plan.ratios)


def _values(
    plan: Plan, dataset: Dataset[Any], log: Path, out: Console, told: LogOptions
) -> tuple[Mapping[str, float], int]:
    """What the metric gives, and how many samples the log answers."""
    module = plan.imported(plan.benchmark.accuracy, "the accuracy metric")
    how = (told.dtype, told.transposed, told.max_examples, told.partial)
    at = Scoring(plan.folder, plan.device, log.parent, *how, reviewed=plan.rules.images)
    seen = np.zeros(dataset.total_count, np.uint64)
    answers = entries(log, seen, told.is_whole)
    with screen.watching("scoring", out) as show:
        values: Mapping[str, float] = module.score(_shown(answers, len(seen), show), dataset, at)
    for _ in answers:  # what a metric did not read is checked all the same
        pass
    return values, int(np.count_nonzero(seen))


def _shown(answers: Iterator[Entry], total: int, show: Callable[[Progress], None] | None) -> Iterator[Entry]:
    """The answers, and now and then how many of them the metric has taken."""
    began = last = time.monotonic()
    for number, entry in enumerate(answers):
        now = time.monotonic()
        if show and number and now - last > _SHOWN_EACH_S:
            last, rate = now, number / (now - began)
            show(Progress(number, number, total, now - began, rate, None, None, (total - number) / rate))
        yield entry


def score_part(plan: Plan, dataset: Dataset[Any], log: Path, of: Path) -> Mapping[str, float]:
    """What the metric gives for the samples that `of` has answers of, by the answers in `log`. Writes nothing.

    Raises InputError for a metric that scores nothing but whole logs.
    """
    wanted = {entry.qsl_idx for entry in read_accuracy(of)}
    module = plan.imported(plan.benchmark.accuracy, "the accuracy metric")
    answers = entries(log, np.zeros(dataset.total_count, np.uint64), is_whole=False)
    some = (entry for entry in answers if entry.index in wanted)
    values: Mapping[str, float] = module.score(some, dataset, Scoring(plan.folder, plan.device, partial=True))
    return values


def _judged(plan: Plan, scores: dict[str, float], ratio: float) -> Accuracy:
    profile = plan.profile
    limits = plan.rules.limits(ratio, profile.reference)
    return Accuracy(scores, {name: profile.limits.get(name, limit) for name, limit in limits.items()}, ratio)


def entries(log: Path, seen: npt.NDArray[np.uint64], is_whole: bool = True) -> Iterator[Entry]:
    """The answers of a log as they are read: each sample once, so that one at a time is in memory.

    seen: of each sample zero, and later a digest of its answer. is_whole: samples that are missing at the end are an
    InputError that names the first, and so is one that comes again with other bytes. In the log of a performance test
    it may: some devices do not give the same last bits twice. There the first answer counts. Raises InputError for an
    unknown sample too, or if there is none.
    """
    count = len(seen)
    for entry in read_accuracy(log):
        index = entry.qsl_idx
        if not 0 <= index < count:
            raise InputError(
                f"{log}: sample {index} is answered, but the dataset has {count} samples: "
                "score the log with the data it was made with"
            )
        digest = np.uint64(int.from_bytes(hashlib.blake2b(entry.data, digest_size=8).digest(), "little") | 1)
        if seen[index] and (seen[index] == digest or not is_whole):
            continue
        if seen[index]:
            raise InputError(
                f"{log}: sample {index} is answered twice, differently: score the log of one accuracy run, or say "
                "--partial if it is a performance test's"
            )
        seen[index] = digest
        yield Entry(index, entry.data, entry.token_count, entry.token_data)
    missing = np.flatnonzero(seen == 0)
    if len(missing) == count or (is_whole and len(missing)):
        raise InputError(
            f"{log}: {len(missing)} of {count} samples have no answer, first sample {missing[0]}: "
            "run accuracy mode to its end, or say --partial if a part is meant"
        )


def text(judged: tuple[Accuracy, ...]) -> str:
    """`f1 92.129 >= 91.207: met; 99.9 %: MISSED`: the lowest ratio in full, the others' verdicts."""
    first, *higher = judged
    return "; ".join([str(first), *(f"{100 * one.ratio:g} %: {'met' if one.met else 'MISSED'}" for one in higher)])


def find_log(given: Path) -> Path:
    """The accuracy log that a file's or a folder's path means. Raises InputError if there is none."""
    if given.is_dir():
        return in_folder(given, "mlperf_log_accuracy.json")
    if not given.is_file():
        raise InputError(f"{given} is not there: give an mlperf_log_accuracy.json or its folder")
    return given
