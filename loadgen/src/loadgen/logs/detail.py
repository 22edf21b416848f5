"""`mlperf_log_detail.txt`: one `:::MLLOG` line an entry. Every line of ours is valid JSON; not so officially."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from loadgen.logs.files import LogError, opened
from loadgen.notes import DetailEntry
from loadgen.results import Value


def detail_text(entries: Iterable[DetailEntry]) -> str:
    """One `:::MLLOG` line an entry."""
    return "".join(map(_line, entries))


def _line(entry: DetailEntry) -> str:
    ms, ns = divmod(entry.time_ns, 1_000_000)
    return (
        f':::MLLOG {{"key": "{entry.key}", "value": {_value(entry.value)}, "time_ms": {ms}.{ns:06d}, '
        '"namespace": "mlperf::logging", "event_type": "POINT_IN_TIME", '
        f'"metadata": {{"is_error": {_value(entry.is_error)}, "is_warning": {_value(entry.is_warning)}, '
        f'"file": "loadgen", "line_no": 0, "pid": {os.getpid()}, "tid": {threading.get_native_id()}}}}}\n'
    )


def _value(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return str(list(value)).replace(" ", "")  # of whole numbers
    return json.dumps(value)


def number(value: float) -> str:
    """A double as C++ streams print it, six significant digits; NaN and infinity as JSON readers know them."""
    if math.isfinite(value):
        return f"{value:g}"
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read_detail(path: Path) -> list[DetailEntry]:
    """Read a detail log of ours or of the official LoadGen. Raises LogError."""
    return [_entry(path, line_no, text) for line_no, text in _detail_lines(path)]


def _detail_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, JSON) of each entry. The official log may break a line within a string."""
    begun, text = 0, ""
    with opened(path) as lines:
        for line_no, line in enumerate(lines, 1):
            if line.startswith(":::MLLOG "):
                if begun:
                    yield begun, text
                begun, text = line_no, line.removeprefix(":::MLLOG ")
            elif begun:
                text += line
            else:
                raise LogError(f"{path}:{line_no}: not a ':::MLLOG' line; is this a detail log?")
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
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise LogError(f"{path}:{line_no}: not a log entry ({error}); the file may be cut off") from error


def metrics_of(entries: Iterable[DetailEntry]) -> dict[str, Value]:
    """The first value of every key, as the official checker reads a detail log."""
    found: dict[str, Value] = {}
    for entry in entries:
        found.setdefault(entry.key, entry.value)
    return found
