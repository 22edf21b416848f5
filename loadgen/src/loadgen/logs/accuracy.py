"""`mlperf_log_accuracy.json`: the logged answers, in hexadecimal, a line each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from loadgen.logs.files import LogError, opened
from loadgen.spool import LoggedAnswer


@dataclass(frozen=True)
class AccuracyEntry:
    """One logged answer."""

    seq_id: int
    qsl_idx: int
    data: bytes
    token_data: bytes | None = None
    token_count: int | None = None


def write_accuracy(file: TextIO, answers: Iterable[LoggedAnswer], indices: Mapping[int, int] | Any) -> None:
    """`mlperf_log_accuracy.json`, answer by answer. indices: sample index by seq_id."""
    file.write("[")
    separator = "\n"
    for answer in answers:
        tokens = ""
        if answer.first_token is not None:
            tokens += f', "token_data" : "{answer.first_token.hex().upper()}"'
        if answer.n_tokens is not None:
            tokens += f', "token_count" : {answer.n_tokens}'
        file.write(
            f'{separator}{{ "seq_id" : {answer.seq_id}, "qsl_idx" : {indices[answer.seq_id]}, '
            f'"data" : "{answer.data.hex().upper()}"{tokens} }}'
        )
        separator = ",\n"
    file.write("\n]\n")


def read_accuracy(path: Path) -> Iterator[AccuracyEntry]:
    """Read an accuracy log of ours or of the official LoadGen, an entry at a time.

    Raises LogError for a file that is cut off or no accuracy log.
    """
    closed = False
    with opened(path) as lines:
        for line_no, line in enumerate(lines, 1):
            text = line.strip().removesuffix(",")
            if text in ("]", "[]"):
                closed = True
            elif text not in ("[", ""):
                yield _entry(path, line_no, text)
    if not closed:
        raise LogError(f"{path}: the closing ']' is missing: the log is cut off, run the accuracy test again")


def _entry(path: Path, line_no: int, text: str) -> AccuracyEntry:
    try:
        entry = json.loads(text)
        token_data = entry.get("token_data")
        return AccuracyEntry(
            entry["seq_id"],
            entry["qsl_idx"],
            bytes.fromhex(entry["data"]),
            None if token_data is None else bytes.fromhex(token_data),
            entry.get("token_count"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogError(
            f"{path}:{line_no}: not an accuracy log entry ({error}); "
            "the log may be cut off: run the accuracy test again"
        ) from error
