"""`results.json`, the one file that says all of a run: what goes in for a test, and how it is read back."""

from __future__ import annotations

import enum
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from loadgen.contracts import InputError
from loadgen.harness.files import saving, sync, whole_file
from loadgen.harness.plan import Layered
from loadgen.logs import result_record
from loadgen.results import Result
from loadgen.rules import Accuracy, Limits
from loadgen.settings import TestSettings

FILE = "results.json"
KINDS = {"AccuracyOnly": "accuracy", "PerformanceOnly": "performance"}
"""Mode -> the name of a test's folder."""
SCHEMA = 2  # of results.json; grows when a field changes its meaning


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
    accuracy: tuple[Accuracy, ...]
    """By each ratio that was judged, lowest first; empty: not an accuracy test, or it was not scored."""
    settings: Mapping[str, Any]
    origins: Mapping[str, str]
    """Setting -> the layer that changed it last; a setting that none changed is not here."""
    folder: Path
    telemetry: tuple[Mapping[str, Any], ...] = ()
    """A row a GPU: its number, and of each measure mean and max (see `loadgen.harness.machine.telemetry`)."""

    @property
    def kind(self) -> str:
        """As in the test's folder name."""
        return KINDS.get(self.mode, self.mode)

    @property
    def verdict(self) -> str:
        """VALID, INVALID or, for a valid test that missed its accuracy target, MISSED."""
        if not self.valid:
            return "INVALID"
        return "MISSED" if self.accuracy and not self.accuracy[0].met else "VALID"

    rates_tried: tuple[Mapping[str, Any], ...] = ()
    """The short tests that sought Server's highest rate: of each its rate, valid and latency_ns."""
    repeats: tuple[float, ...] = ()
    """Of each run of the test, where there were several: see `figure`."""

    @property
    def spread_percent(self) -> float:
        """Between the lowest and the highest of several runs, as a share of the median; 0: there was one."""
        if len(self.repeats) < 2 or not (middle := statistics.median(self.repeats)):
            return 0.0
        return 100 * (max(self.repeats) - min(self.repeats)) / middle


@dataclass(frozen=True)
class SavedRun:
    """A run as its folder keeps it."""

    folder: Path
    benchmark: str
    title: str
    profile: str
    summary: str
    """What the profile's files are."""
    shortfalls: tuple[str, ...]
    """What keeps it from being a benchmark result; empty: it is one."""
    machine: Mapping[str, str]
    options: Mapping[str, Any]
    tests: tuple[SavedTest, ...]
    files: Mapping[str, str]
    """Model and data that were read -> their checksums (see `provenance.files`)."""


def entry(
    result: Result,
    accuracy: tuple[Accuracy, ...],
    layers: Layered,
    folder: str,
    telemetry: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What `results.json` says of one test; folder is relative to it."""
    settings = {f.name: getattr(layers.settings, f.name) for f in fields(layers.settings)}
    return {
        **result_record(result),
        "accuracy": _accuracy_record(accuracy),
        "settings": {k: v.name if isinstance(v, enum.Enum) else v for k, v in settings.items()},
        "origins": dict(layers.origin),
        "folder": folder,
        "telemetry": list(telemetry),
    }


def _accuracy_record(judged: tuple[Accuracy, ...]) -> dict[str, Any] | None:
    if not judged:
        return None
    return {
        "values": dict(judged[0].values),
        "judged": [{"ratio": one.ratio, "met": one.met, "limits": dict(one.limits)} for one in judged],
    }


def _accuracy(data: Mapping[str, Any] | None) -> tuple[Accuracy, ...]:
    if data is None:
        return ()
    values = {name: float(value) for name, value in data["values"].items()}
    return tuple(
        Accuracy(values, {name: _limits(*pair) for name, pair in one["limits"].items()}, float(one["ratio"]))
        for one in data["judged"]
    )


def _limits(low: Any, high: Any) -> Limits:
    return None if low is None else float(low), None if high is None else float(high)


def judged_latencies(scenario: str, settings: Mapping[str, Any]) -> tuple[tuple[str, str, int], ...]:
    """(key of the detail log, name, limit in ns) of each latency that the rules judge; none but in Server."""
    if scenario != "Server" or not settings:
        return ()
    share = 100 * float(settings["server_target_latency_percentile"])
    if not settings.get("use_token_latencies"):
        key = f"result_{share:.2f}_percentile_latency_ns"
        return ((key, f"latency p{share:g}", int(settings["server_target_latency_ns"])),)
    first, each = (
        f"result_first_token_{share:.2f}_percentile_latency_ns",
        f"result_time_per_output_token_{share:.2f}_percentile_ns",
    )
    return (
        (first, f"first token p{share:g}", int(settings["server_ttft_latency"])),
        (each, f"time per token p{share:g}", int(settings["server_tpot_latency"])),
    )


def figure(result: Result, settings: TestSettings) -> float | None:
    """By which runs of one test are compared: what is judged of Server's latencies, else the headline's value."""
    for key, _, _ in judged_latencies(result.scenario.name, vars(settings)):
        return float(result.metrics[key]) if key in result.metrics else None
    return None if result.headline is None else result.headline.value


def against_limits(scenario: str, metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """`, latency p99 12.3 of 130 ms`: what stands beside Server's rate; empty for other scenarios."""
    return "".join(
        f", {name} {metrics[key] / 1e6:,.4g} of {limit / 1e6:,.6g} ms"
        for key, name, limit in judged_latencies(scenario, settings)
        if key in metrics
    )


def write(folder: Path, data: Mapping[str, Any]) -> None:
    """Replace the folder's `results.json`, whole and on the disk. Raises InputError that names the file."""
    file = folder / FILE
    with saving(file), whole_file(file) as part:
        part.write_text(json.dumps(data, indent=1) + "\n")
        sync(part)


class LostError(InputError):
    """A `results.json` that is missing or damaged, which the tests' own files may make up for."""

    def __init__(self, file: Path, fault: str) -> None:
        """file: the one that was looked for; fault: what is wrong with it."""
        super().__init__(f"{fault}: {_advice(file)}")
        self.fault = fault


def _file(folder: Path) -> Path:
    """The `results.json` that a path means: of a run's folder, or itself."""
    return folder if folder.is_file() else folder / FILE


def load(folder: Path) -> dict[str, Any]:
    """`results.json` as it is. Raises LostError if it is missing or damaged, InputError if it is of another schema."""
    file = _file(folder)
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise InputError(
                f"{file} has schema {data['schema']}, this version reads {SCHEMA}: use the version that wrote it"
            )
    except OSError as error:
        raise LostError(file, f"{file} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LostError(file, f"{file} is not the results file of a run, or it is damaged ({error})") from error
    return data


def _advice(file: Path) -> str:
    """What to do about a `results.json` that cannot be read; file: that, or what was given in its place."""
    folder = file.parent
    if file.name != FILE and (folder / FILE).is_file():
        return f"the folder of the run is {folder}"
    if file.name != FILE or not folder.is_dir():
        return "give the output folder of a run"
    above = [place for place in list(folder.absolute().parents)[:2] if (place / FILE).is_file()]
    below = [found.parent for found in folder.glob(f"*/{FILE}")]
    if len(above or below) == 1:
        return f"the folder of the run is {(above or below)[0]}"
    if any(folder.glob("*/*/result.json")):
        return f"the command `report {folder}` makes it again from the tests' own files"
    return "give the output folder of a run"


def arguments_of(folder: Path) -> tuple[str, ...]:
    """The words after `run` that this folder's run was begun with. Raises InputError if they cannot be given again."""
    data = load(folder)
    words, place = data.get("arguments"), data.get("directory")
    if not isinstance(words, list):
        raise InputError(f"{folder / FILE} does not say how its run was begun: run again what is missing")
    if place != str(Path.cwd()):
        raise InputError(f"{folder} was begun in {place}: resume it there, where its paths mean the same")
    return tuple(map(str, words))


def read(folder: Path) -> SavedRun:
    """The run in this folder. Raises InputError that names the file, if it is missing or damaged."""
    file = _file(folder)
    data = load(folder)
    try:
        return _run(data, file.parent)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LostError(file, f"{file} is not the results file of a run, or it is damaged ({error!r})") from error


def _run(data: Mapping[str, Any], folder: Path) -> SavedRun:
    return SavedRun(
        folder=folder,
        benchmark=data["benchmark"],
        title=data.get("title", data["benchmark"]),
        profile=data["profile"],
        summary=data.get("profile_summary", ""),
        shortfalls=_shortfalls(data),
        machine=dict(data["machine"]),
        options=dict(data.get("options", {})),
        tests=tuple(_test(test, folder) for test in data["tests"]),
        files=dict(data.get("files", {})),
    )


def _shortfalls(data: Mapping[str, Any]) -> tuple[str, ...]:
    if data["benchmark_result"]:
        return ()
    return tuple(map(str, data.get("shortfalls", ()))) or (f"the {data['profile']} profile is a stand-in",)


def _test(data: Mapping[str, Any], folder: Path) -> SavedTest:
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
        accuracy=_accuracy(data["accuracy"]),
        settings=dict(data.get("settings", {})),
        origins=dict(data.get("origins", {})),
        folder=folder / data["folder"],
        telemetry=tuple(_gpu(row) for row in data.get("telemetry", ())),
        rates_tried=tuple(_tried(row) for row in data.get("rates_tried", ())),
        repeats=tuple(float(value) for value in data.get("repeats", ()) if value is not None),
    )


def _tried(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"rate": float(row["rate"]), "valid": bool(row["valid"]), "latency_ns": int(row["latency_ns"])}


def _gpu(row: Mapping[str, Any]) -> dict[str, Any]:
    measures = {name: {"mean": float(v["mean"]), "max": float(v["max"])} for name, v in row.items() if name != "gpu"}
    return {"gpu": int(row["gpu"]), **measures}


def _headline(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {"name": data["name"], "value": float(data["value"]), "unit": data["unit"]} if data else None
