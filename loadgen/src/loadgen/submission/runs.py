"""The folder of a run, as `results.json` describes it: what a submission is built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadgen.errors import InputError
from loadgen.submission.reading import read_object

FILE = "results.json"
_SCHEMA = 2


@dataclass(frozen=True)
class Test:
    """One test of a run."""

    scenario: str
    mode: str
    """`PerformanceOnly` or `AccuracyOnly`."""
    folder: Path
    valid: bool
    met: tuple[float, ...]
    """Ratios to the reference that an accuracy test met."""
    settings: Mapping[str, Any]
    origins: Mapping[str, str]
    """Setting -> the layer that changed it last."""
    metrics: Mapping[str, Any]
    samples: int
    """Answered."""
    duration_ns: int


@dataclass(frozen=True)
class RunFolder:
    """One run."""

    folder: Path
    benchmark: str
    model: str
    """Its key in the rules."""
    round: str
    profile: str
    shortfalls: tuple[str, ...]
    """What keeps it from being a benchmark result."""
    machine: Mapping[str, str]
    system: Mapping[str, str]
    """What the machine says of itself, by the fields of a system's description."""
    options: Mapping[str, Any]
    arguments: tuple[str, ...]
    tests: tuple[Test, ...]


def read_run(folder: Path) -> RunFolder:
    """Raises InputError that names the file, if it is missing or damaged."""
    file = folder / FILE
    data, fault = read_object(file)
    if data is None:
        raise InputError(f"{file}: {fault}: give the output folder of a run")
    if data.get("schema") != _SCHEMA:
        raise InputError(f"{file} has schema {data.get('schema')}, this version reads {_SCHEMA}: run again")
    try:
        return _run(folder, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{file} is not the results file of a run, or it is damaged ({error!r}): run again") from error


def _run(folder: Path, data: Mapping[str, Any]) -> RunFolder:
    if "model" not in data:
        raise InputError(
            f"{folder / FILE} does not name the model by the rules' name: an older version wrote it; run again"
        )
    return RunFolder(
        folder,
        benchmark=data["benchmark"],
        model=data["model"],
        round=data["options"]["rules"],
        profile=data["profile"],
        shortfalls=tuple(map(str, data.get("shortfalls", ()))),
        machine=dict(data["machine"]),
        system=dict(data.get("system", {})),
        options=dict(data["options"]),
        arguments=tuple(map(str, data.get("arguments", ()))),
        tests=tuple(_test(folder, test) for test in data["tests"]),
    )


def _test(folder: Path, data: Mapping[str, Any]) -> Test:
    judged: Sequence[Mapping[str, Any]] = (data["accuracy"] or {}).get("judged", ())
    return Test(
        scenario=data["scenario"],
        mode=data["mode"],
        folder=folder / data["folder"],
        valid=bool(data["valid"]),
        met=tuple(float(one["ratio"]) for one in judged if one["met"]),
        settings=dict(data.get("settings", {})),
        origins=dict(data.get("origins", {})),
        metrics=dict(data["metrics"]),
        samples=int(data["sample_count"]),
        duration_ns=int(data["duration_ns"]),
    )
