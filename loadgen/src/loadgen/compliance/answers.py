"""TEST01: are answers of a performance run those of the accuracy run?

Here whole answers are compared. The official `verify_accuracy.py` compares the first byte of each (unless told of
another number format), so that an answer may be wrong beyond it; `Compared.official` is what it would have said.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from loadgen.compliance.verdict import Check
from loadgen.errors import InputError
from loadgen.logs import read_accuracy


class _Answer(NamedTuple):
    """As much of an answer as a comparison needs, so that a log of many GB is not in memory."""

    digest: bytes
    first: bytes
    """Its first byte; empty: it has none."""


@dataclass(frozen=True)
class Compared:
    """What the two logs have in common. Counts are named as in the official text."""

    accuracy_entries: int
    accuracy_duplicates: int
    accuracy_mismatches: int
    """Samples that the accuracy run answered twice, differently."""
    entries: int
    matched: int
    """Entries of the test's log whose sample the accuracy log has."""
    missing: int
    differing: tuple[int, ...]
    """Samples whose whole answers differ, each once, in the order of the log."""
    first_differing: int
    """Entries whose first bytes differ, counted as officially."""

    @property
    def same(self) -> bool:
        return self.matched > 0 and not self.differing and not self.missing

    @property
    def official(self) -> bool:
        """What the official script says, reading bytes."""
        return self.matched > 0 and not self.first_differing

    def check(self) -> Check:
        said = "no answer was logged" if not self.entries else f"{self.entries:,} answers equal"
        if self.missing:
            said = f"{self.missing:,} of {self.entries:,} answers are of samples that the accuracy run did not have"
        elif self.differing:
            first = self.differing[0]
            said = f"{len(self.differing):,} samples of {self.entries:,} answers differ, first sample {first}"
        official = f"the official script says TEST {'PASS' if self.official else 'FAIL'}"
        return Check("accuracy", self.same, said, official if self.official != self.same else "")

    def text(self) -> str:
        """Of verify_accuracy.txt."""
        check = self.check()
        lines = [
            "Whole answers are compared.",
            f"num_acc_log_entries = {self.accuracy_entries}",
            f"num_acc_log_duplicate_keys = {self.accuracy_duplicates}",
            f"num_acc_log_data_mismatch = {self.accuracy_mismatches}",
            f"num_perf_log_entries = {self.entries}",
            f"num_perf_log_qsl_idx_match = {self.matched}",
            f"num_perf_log_data_mismatch = {len(self.differing)}",
            f"num_missing_qsl_idxs = {self.missing}",
            f"first bytes alone: {self.first_differing} differ",
            "TEST PASS" if check.passed else f"TEST FAIL: {check.said}",
        ]
        return "\n".join(lines) + "\n"


def compare(accuracy_log: Path, test_log: Path) -> Compared:
    """Read both logs, an entry at a time. Raises LogError for a damaged one, InputError if the first is empty."""
    logged = [(entry.qsl_idx, _digest(entry.data)) for entry in read_accuracy(test_log)]
    known, duplicates, mismatches, count = _read(accuracy_log)
    if not count:
        raise InputError(f"{accuracy_log} has no answer: give the log of an accuracy run")
    matched = sum(index in known for index, _ in logged)
    differing = dict.fromkeys(index for index, answer in logged if index in known and answer != known[index])
    return Compared(
        accuracy_entries=count,
        accuracy_duplicates=duplicates,
        accuracy_mismatches=mismatches,
        entries=len(logged),
        matched=matched,
        missing=len(logged) - matched,
        differing=tuple(differing),
        first_differing=_first_differing(known, logged),
    )


def _read(log: Path) -> tuple[dict[int, _Answer], int, int, int]:
    """(each sample's first answer, further answers, those that differ, entries)."""
    known: dict[int, _Answer] = {}
    duplicates = mismatches = count = 0
    for entry in read_accuracy(log):
        answer = _digest(entry.data)
        count += 1
        if entry.qsl_idx in known:
            duplicates += 1
            mismatches += answer != known[entry.qsl_idx]
        known.setdefault(entry.qsl_idx, answer)
    return known, duplicates, mismatches, count


def _digest(data: bytes) -> _Answer:
    return _Answer(hashlib.blake2b(data, digest_size=16).digest(), data[:1])


def _first_differing(known: dict[int, _Answer], logged: list[tuple[int, _Answer]]) -> int:
    """The official count: an entry is compared with the one before it of the same sample, first with the accuracy
    log's; an empty answer equals another empty one alone."""
    last = {index: answer.first for index, answer in known.items()}
    count = 0
    for index, answer in logged:
        count += index in last and answer.first != last[index]
        last[index] = answer.first
    return count
