"""The official log files: writes them from finished columns, and reads them back.

Layout, keys and their order, and number formats are those of the official LoadGen, so its checker
and tools read these files. One deliberate difference: every line of ours is valid JSON.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from loadgen.recorder import LoggedAnswer
from loadgen.results import Value


@dataclass(frozen=True)
class LogSettings:
    """Where the logs of a run go. Existing files of the same name are replaced."""

    outdir: Path
    prefix: str = "mlperf_log_"
    suffix: str = ""
    prefix_with_datetime: bool = False
    """Put the local time before each name, as the official LoadGen does."""
    enable_trace: bool = False
    copy_summary_to_stdout: bool = False
    copy_detail_to_stdout: bool = False
    started: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ"))

    def path(self, name: str) -> Path:
        """`name` with its ending, such as `summary.txt`, to its path."""
        stem, ending = name.rsplit(".", 1)
        stamp = f"{self.started}_" if self.prefix_with_datetime else ""
        return self.outdir / f"{self.prefix}{stamp}{stem}{self.suffix}.{ending}"


@dataclass(frozen=True)
class DetailEntry:
    """One line of the detail log."""

    key: str
    value: Any
    time_ns: int = 0
    """Since the log was started."""
    is_error: bool = False
    is_warning: bool = False


@dataclass
class DetailLog:
    """Collects detail entries during a run; nothing is written until it ends."""

    now_ns: Any
    start_ns: int
    entries: list[DetailEntry] = field(default_factory=list)

    def add(self, key: str, value: Any, *, error: bool = False, warning: bool = False) -> None:
        self.entries.append(DetailEntry(key, value, self.now_ns() - self.start_ns, error, warning))

    @property
    def errors(self) -> int:
        return sum(e.is_error for e in self.entries)

    @property
    def warnings(self) -> int:
        return sum(e.is_warning for e in self.entries)


def write_detail(file: TextIO, entries: Iterable[DetailEntry]) -> None:
    """`mlperf_log_detail.txt`: one `:::MLLOG` line an entry."""
    pid, tid = os.getpid(), threading.get_native_id()
    for entry in entries:
        ms, ns = divmod(entry.time_ns, 1_000_000)
        file.write(
            f':::MLLOG {{"key": "{entry.key}", "value": {_value(entry.value)}, "time_ms": {ms}.{ns:06d}, '
            '"namespace": "mlperf::logging", "event_type": "POINT_IN_TIME", '
            f'"metadata": {{"is_error": {_value(entry.is_error)}, "is_warning": {_value(entry.is_warning)}, '
            f'"file": "loadgen", "line_no": 0, "pid": {pid}, "tid": {tid}}}}}\n'
        )


def _value(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(str, value)) + "]"
    return json.dumps(value)


def number(value: float) -> str:
    """A double as C++ streams print it, six significant digits; NaN and infinity as JSON readers know them."""
    if math.isfinite(value):
        return f"{value:g}"
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read_detail(path: Path) -> list[DetailEntry]:
    """Read a detail log of ours or of the official LoadGen. Raises ValueError with path and line."""
    return [_entry(path, line_no, text) for line_no, text in _detail_lines(path)]


def _detail_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, JSON) of each entry. The official log may break a line within a string."""
    begun, text = 0, ""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line_no, line in enumerate(lines, 1):
            if line.startswith(":::MLLOG "):
                if begun:
                    yield begun, text
                begun, text = line_no, line.removeprefix(":::MLLOG ")
            elif begun:
                text += line
            else:
                raise ValueError(f"{path}:{line_no}: not a ':::MLLOG' line; is this a detail log?")
    if begun:
        yield begun, text


_CPP_NUMBERS = {"-nan": "NaN", "nan": "NaN", "-inf": "-Infinity", "inf": "Infinity"}


def _entry(path: Path, line_no: int, text: str) -> DetailEntry:
    for cpp, python in _CPP_NUMBERS.items():
        text = text.replace(f'"value": {cpp},', f'"value": {python},')
    try:
        record = json.loads(text, strict=False)
        metadata = record["metadata"]
        time_ns = round(record["time_ms"] * 1e6)
        return DetailEntry(record["key"], record["value"], time_ns, metadata["is_error"], metadata["is_warning"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}:{line_no}: not a log entry ({error}); the file may be cut off") from error


def metrics_of(entries: Iterable[DetailEntry]) -> dict[str, Value]:
    """The first value of every key, as the official checker reads a detail log."""
    found: dict[str, Value] = {}
    for entry in entries:
        found.setdefault(entry.key, entry.value)
    return found


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

    Raises ValueError, with path and line, for a file that is cut off or not an accuracy log.
    """
    closed = False
    with path.open() as lines:
        for line_no, line in enumerate(lines, 1):
            text = line.strip().removesuffix(",")
            if text in ("[", ""):
                continue
            if text in ("]", "[]"):
                closed = True
                continue
            try:
                entry = json.loads(text)
                token_data = entry.get("token_data")
                yield AccuracyEntry(
                    entry["seq_id"],
                    entry["qsl_idx"],
                    bytes.fromhex(entry["data"]),
                    None if token_data is None else bytes.fromhex(token_data),
                    entry.get("token_count"),
                )
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}:{line_no}: not an accuracy log entry ({error}); "
                    "the log may be cut off: run the accuracy test again"
                ) from error
    if not closed:
        raise ValueError(f"{path}: the closing ']' is missing: the log is cut off, run the accuracy test again")
