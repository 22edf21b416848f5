"""TEST06: is an answer of tokens one? As the official script asks, with one question more.

The official one never looks at an answer's first token for the end of the sequence, and takes an answer whose first
tokens were not logged for one whose first token is right; here that is a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadgen.compliance.verdict import Check
from loadgen.logs import AccuracyEntry, read_accuracy
from loadgen.settings import Scenario

_Ids = npt.NDArray[np.generic]


def verify(log: Path, scenario: Scenario, eos: int, dtype: str = "int64") -> tuple[tuple[Check, ...], str]:
    """The checks, and the text of verify_accuracy.txt. Raises LogError for a damaged log.

    dtype: of the tokens' numbers in the log.
    """
    entries = list(read_accuracy(log))  # 100 answers
    timed = scenario is not Scenario.Offline
    size = np.dtype(dtype).itemsize
    checks = [
        _check("first token", entries, lambda one: not timed or _begins(one, size), "is not the first reported"),
        _check(
            "end of sequence", entries, lambda one: _ends(_ids(one, dtype), eos), f"has more than one {eos} at its end"
        ),
        _check("length", entries, lambda one: len(one.data) == (one.token_count or 0) * size, "has another length"),
    ]
    first, end, length = (check.passed for check in checks)
    lines = [
        f"First token check pass: {first if timed else 'Skipped'}",
        f"EOS check pass: {end}",
        f"Sample length check pass: {length}",
        f"TEST06 verification {'complete' if first and end and length else 'failed'}",
    ]
    if not timed:
        checks[0] = Check("first token", True, "not reported in Offline")
    return tuple(checks), "\n".join(lines) + "\n"


def _check(name: str, entries: list[AccuracyEntry], right: Callable[[AccuracyEntry], bool], fault: str) -> Check:
    wrong = [one.qsl_idx for one in entries if not right(one)]
    if not entries:
        return Check(name, False, "no answer was logged")
    if wrong:
        return Check(name, False, f"{len(wrong):,} of {len(entries):,} answers: first sample {wrong[0]} {fault}")
    return Check(name, True, f"{len(entries):,} answers")


def _ids(entry: AccuracyEntry, dtype: str) -> _Ids:
    whole = len(entry.data) - len(entry.data) % np.dtype(dtype).itemsize
    return np.frombuffer(entry.data[:whole], dtype)


def _begins(entry: AccuracyEntry, size: int) -> bool:
    """Are the tokens that were reported first the answer's first?"""
    reported = entry.token_data or b""
    return len(reported) >= min(size, len(entry.data)) and entry.data[: len(reported)] == reported


def _ends(ids: _Ids, eos: int) -> bool:
    return not (len(ids) > 2 and ids[-1] == eos and ids[-2] == eos)
