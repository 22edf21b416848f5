"""`results.json`, the one file that says all of a run: what goes in for a test, and how it is read back."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from loadgen.contracts import InputError
from loadgen.harness.layers import Layered
from loadgen.outcome import result_record
from loadgen.results import Result

FILE = "results.json"
SCHEMA = 1


@dataclass(frozen=True)
class Accuracy:
    """A score and the lowest values that pass."""

    values: Mapping[str, float]
    targets: Mapping[str, float]

    @property
    def met(self) -> bool:
        return all(self.values[name] >= least for name, least in self.targets.items())


@dataclass(frozen=True)
class SavedTest:
    """One test of a saved run. `settings` and `origins` are empty in files of before they were kept."""

    scenario: str
    mode: str
    """As in `Mode`, by name."""
    valid: bool
    interrupted: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    headline: Mapping[str, Any] | None
    """name, value and unit."""
    query_count: int
    sample_count: int
    duration_ns: int
    metrics: Mapping[str, Any]
    finished: str
    accuracy: Accuracy | None
    settings: Mapping[str, Any]
    origins: Mapping[str, str]
    """Setting -> the layer that changed it last; a setting that none changed is not here."""
    folder: Path
    telemetry: tuple[Mapping[str, Any], ...] = ()
    """A row a GPU: its number, and of each measure mean and max (see `loadgen.harness.machine.telemetry`)."""

    @property
    def kind(self) -> str:
        """As in the test's folder name."""
        return {"AccuracyOnly": "accuracy", "PerformanceOnly": "performance"}.get(self.mode, self.mode)

    @property
    def verdict(self) -> str:
        """VALID, INVALID or, for a valid test that missed its accuracy target, MISSED."""
        if not self.valid:
            return "INVALID"
        return "MISSED" if self.accuracy and not self.accuracy.met else "VALID"


@dataclass(frozen=True)
class SavedRun:
    """A run as its folder keeps it."""

    folder: Path
    benchmark: str
    title: str
    profile: str
    summary: str
    """What the profile's files are."""
    is_official: bool
    machine: Mapping[str, str]
    options: Mapping[str, Any]
    tests: tuple[SavedTest, ...]


def entry(
    result: Result,
    accuracy: Mapping[str, Any] | None,
    layers: Layered,
    folder: str,
    telemetry: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What `results.json` says of one test; folder is relative to it."""
    settings = {f.name: getattr(layers.settings, f.name) for f in fields(layers.settings)}
    return {
        **result_record(result),
        "accuracy": accuracy,
        "settings": {k: v.name if isinstance(v, enum.Enum) else v for k, v in settings.items()},
        "origins": dict(layers.origin),
        "folder": folder,
        "telemetry": list(telemetry),
    }


def read(folder: Path) -> SavedRun:
    """The run in this folder. Raises InputError that names the file, if it is missing or damaged."""
    file = folder / FILE if folder.is_dir() else folder
    try:
        data = json.loads(file.read_text())
        if data["schema"] != SCHEMA:
            raise InputError(
                f"{file} has schema {data['schema']}, this version reads {SCHEMA}: use the version it is of"
            )
        return _run(data, file.parent)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): give the output folder of a run") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no results file of a run, or damaged ({error!r}): run again") from error


def _run(data: Mapping[str, Any], folder: Path) -> SavedRun:
    return SavedRun(
        folder=folder,
        benchmark=data["benchmark"],
        title=data.get("title", data["benchmark"]),
        profile=data["profile"],
        summary=data.get("profile_summary", ""),
        is_official=data["benchmark_result"],
        machine=dict(data["machine"]),
        options=dict(data.get("options", {})),
        tests=tuple(_test(test, folder) for test in data["tests"]),
    )


def _test(data: Mapping[str, Any], folder: Path) -> SavedTest:
    score = data["accuracy"]
    return SavedTest(
        scenario=data["scenario"],
        mode=data["mode"],
        valid=data["valid"],
        interrupted=data["interrupted"],
        reasons=tuple(data["reasons"]),
        warnings=tuple(map(str, data["warnings"])),
        headline=_headline(data["headline"]),
        query_count=int(data["query_count"]),
        sample_count=int(data["sample_count"]),
        duration_ns=int(data["duration_ns"]),
        metrics=dict(data["metrics"]),
        finished=data["finished"],
        accuracy=Accuracy(_floats(score["values"]), _floats(score["targets"])) if score else None,
        settings=dict(data.get("settings", {})),
        origins=dict(data.get("origins", {})),
        folder=folder / data["folder"],
        telemetry=tuple(_gpu(row) for row in data.get("telemetry", ())),
    )


def _gpu(row: Mapping[str, Any]) -> dict[str, Any]:
    measures = {name: {"mean": float(v["mean"]), "max": float(v["max"])} for name, v in row.items() if name != "gpu"}
    return {"gpu": int(row["gpu"]), **measures}


def _headline(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {"name": data["name"], "value": float(data["value"]), "unit": data["unit"]} if data else None


def _floats(data: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in data.items()}
