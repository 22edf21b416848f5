"""`results.json` made again from what each test left in its own folder, where it was lost or damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loadgen.contracts import InputError
from loadgen.harness.files import saving, whole_file
from loadgen.harness.machine import telemetry
from loadgen.harness.report import record
from loadgen.results import Result
from loadgen.settings import Mode, Scenario

FILE = "test.json"
"""In a test's folder: what `results.json` says of the test, and of the run."""
_RESULT = "result.json"  # LoadGen's own, of a test that ended before the run could record it


def save(folder: Path, run: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    """Write `test.json` of one test."""
    file = folder / FILE
    with saving(file), whole_file(file) as part:
        part.write_text(json.dumps({**run, "tests": [entry]}, indent=1) + "\n")


def forget(folder: Path) -> None:
    """Another test takes this one's place."""
    for name in (FILE, _RESULT):
        (folder / name).unlink(missing_ok=True)


def answered(folder: Path) -> Result | None:
    """Of an accuracy test that came to its end, but was not scored: its answers lie in the log. None: it did not."""
    data = _read(folder / _RESULT)
    if data.get("mode") != "AccuracyOnly" or data.get("valid") is not True:
        return None
    return Result(
        scenario=Scenario[data["scenario"]],
        mode=Mode.AccuracyOnly,
        valid=True,
        reasons=(),
        errors=tuple(data["errors"]),
        warnings=tuple(data["warnings"]),
        metrics=data["metrics"],
        headline=None,
        query_count=data["query_count"],
        sample_count=data["sample_count"],
        duration_ns=data["duration_ns"],
        interrupted=False,
        note="",
        details=(),
        logdir=folder,
        raised=None,
        latencies_ns=np.empty(0, np.int64),
    )


def mended(folder: Path, benchmark: str = "", title: str = "") -> str:
    """Write the folder's `results.json` again if it is missing or damaged, or if it lacks a test that has ended.

    A damaged one is kept as `results.json.damaged`. benchmark, title: where no test says it. Returns what was done, for
    the user; empty: nothing. Raises InputError if there is nothing to make it from.
    """
    folder = folder.parent if folder.name == record.FILE else folder
    file = folder / record.FILE
    tests, run = _left(folder)
    try:
        record.read(folder)
        data, lost = record.load(folder), ""
    except record.LostError as error:
        if not tests:
            raise
        data, lost = {**(run or _unknown(benchmark, title)), "tests": []}, error.fault
    known = {(test["scenario"], test["mode"]) for test in data["tests"]}
    more = [test for key, test in tests.items() if key not in known]
    if not more:
        return ""
    if file.is_file() and lost:
        file.replace(file.with_name(f"{file.name}.damaged"))
    record.write(folder, {**data, "tests": [*data["tests"], *more]})
    named = ", ".join(f"{test['scenario']} {test['mode']}" for test in more)
    return f"{lost or f'{file} lacked tests that had ended'}; made again from the tests' own files: {named}"


def _left(folder: Path) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, Any]]:
    """(entry of each test by scenario and mode, in the order in which they ended; the run as the last one says it)."""
    tests: dict[tuple[str, str], dict[str, Any]] = {}
    run: dict[str, Any] = {}
    for file in sorted(folder.glob(f"*/*/{FILE}"), key=lambda path: path.stat().st_mtime):
        data = _read(file)
        if data and data.get("schema") == record.SCHEMA and len(data.get("tests", ())) == 1:
            (entry,) = data["tests"]
            tests[entry["scenario"], entry["mode"]], run = entry, data
    for file in sorted(folder.glob(f"*/*/{_RESULT}"), key=lambda path: path.stat().st_mtime):
        data = _read(file)
        is_test = {"scenario", "mode", "valid", "reasons"} <= set(data) and file.parent.name.isalpha()  # no repeat
        if is_test and (key := (data["scenario"], data["mode"])) not in tests:
            tests[key] = _unrecorded(data, file.parent.relative_to(folder).as_posix(), folder)
    return tests, run


def _read(file: Path) -> dict[str, Any]:
    """Empty for what cannot be read."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _unrecorded(data: Mapping[str, Any], place: str, folder: Path) -> dict[str, Any]:
    """The entry of a test of which LoadGen's result alone is left."""
    entry = {**data, "accuracy": None, "settings": {}, "origins": {}, "folder": place, "telemetry": []}
    if data["mode"] == "AccuracyOnly":
        reason = f"the answers are not scored: the run ended before; the command `accuracy {folder / place}` does it"
        return {**entry, "valid": False, "interrupted": True, "reasons": [*data["reasons"], reason]}
    try:
        sampled = telemetry.read(folder / place)
    except InputError:
        sampled = None
    return {**entry, "telemetry": sampled.summary() if sampled else []}


def _unknown(benchmark: str, title: str) -> dict[str, Any]:
    return {
        "schema": record.SCHEMA,
        "benchmark": benchmark,
        "title": title,
        "profile": "unknown",
        "benchmark_result": False,
        "shortfalls": ["what was measured on which files and settings was not recorded"],
        "machine": {},
        "options": {},
    }
