"""Files of a tree as they are: whatever is wrong with one is said, never raised."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MARK = ":::MLLOG"
_LONGEST_LINE = 1 << 26  # characters; a log has none so long, and a garbled one may not fill the memory


@dataclass(frozen=True)
class Log:
    """A detail log: the first value of each key."""

    values: Mapping[str, Any] = field(default_factory=dict)
    errors: Sequence[str] = ()
    fault: str = ""
    """What keeps the official reader from reading it, with the line; empty: nothing."""
    is_missing: bool = False

    def number(self, key: str) -> float | None:
        """A finite number, to which true and false count as in Python; None if the log has none there."""
        value = self.values.get(key)
        if not isinstance(value, (int, float)):
            return None
        try:
            return value if math.isfinite(value) else None
        except OverflowError:  # hundreds of digits
            return None

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return value if isinstance(value, str) else None


def read_log(path: Path) -> Log:
    """A detail log of whatever system."""
    values: dict[str, Any] = {}
    errors: list[str] = []
    fault = ""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(_lines(lines), 1):
                if not line.startswith(MARK):
                    continue
                said = _take(line[len(MARK) :], values, errors)
                fault = fault or (f"line {number}: {said}" if said else "")
    except FileNotFoundError:
        return Log(fault="it is not there", is_missing=True)
    except (OSError, UnicodeDecodeError) as error:
        return Log(values, errors, f"it cannot be read: {reason(error)}")
    return Log(values, errors, fault)


def _lines(file: Any) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        yield line


def _take(text: str, values: dict[str, Any], errors: list[str]) -> str:
    """Note an entry; returns what is wrong with it."""
    try:
        entry = json.loads(text)
        values.setdefault(entry["key"], entry["value"])
        if entry["metadata"]["is_error"]:
            errors.append(f"{entry['key']}: {entry['value']}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"no log entry ({reason(error)})"
    return ""


def read_json(path: Path) -> tuple[Any, str]:
    """(what the file holds, what is wrong with it)."""
    try:
        return json.loads(path.read_text(encoding="utf-8")), ""
    except (OSError, ValueError, RecursionError) as error:
        return None, reason(error)


def read_object(path: Path) -> tuple[dict[str, Any] | None, str]:
    """A JSON object, and what is wrong with it."""
    value, fault = read_json(path)
    if fault or isinstance(value, dict):
        return value, fault
    return None, f"it is a {type(value).__name__}, not an object"


def read_text(path: Path) -> tuple[str | None, str]:
    try:
        return path.read_text(encoding="utf-8"), ""
    except (OSError, UnicodeDecodeError) as error:
        return None, reason(error)


def reason(error: Exception) -> str:
    """Without the path, which stands beside it anyway."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error).split("\n")[0]


def folders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none if it is not there."""
    return _named(path, lambda one: one.is_dir())


def files(path: Path) -> list[str]:
    return _named(path, lambda one: one.is_file())


def _named(path: Path, wanted: Any) -> list[str]:
    try:
        return sorted(one.name for one in path.iterdir() if wanted(one))
    except OSError:
        return []
