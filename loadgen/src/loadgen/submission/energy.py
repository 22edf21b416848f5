"""Energy by the machine's own counters: an unofficial figure, which no submission may hold.

NVML's watts of each GPU are in `telemetry.csv`, the processors' counters (RAPL) in `energy.json`, both beside the
logs of a performance test. Neither sees fans, disks, memory beyond the counters, or losses of the power supply.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from loadgen.errors import InputError
from loadgen.submission.reading import read_object
from loadgen.submission.runs import RunFolder, Test

LABEL = "unofficial: by the machine's own counters, not for submission"
FILE = "energy.json"


@dataclass(frozen=True)
class Energy:
    """What a performance test took, as far as the machine's counters tell."""

    scenario: str
    joules: Mapping[str, float]
    """By source: `gpu 0`, `cpu package-0`."""
    seconds: float
    samples: int
    tokens: float | None
    """Answered; None: the model has none."""

    @property
    def total(self) -> float:
        return sum(self.joules.values())

    @property
    def per_sample(self) -> float:
        return self.total / self.samples

    @property
    def per_token(self) -> float | None:
        return self.total / self.tokens if self.tokens else None


def energies(run: RunFolder) -> list[Energy]:
    """Of every performance test whose counters were read. Raises InputError for a damaged file."""
    tests = [test for test in run.tests if test.mode == "PerformanceOnly"]
    return [found for test in tests if (found := _energy(test)) is not None]


def _energy(test: Test) -> Energy | None:
    joules = {**_gpus(test.folder / "telemetry.csv"), **_processors(test.folder / FILE)}
    if not joules or not test.samples:
        return None
    rate = next((value for name, value in test.metrics.items() if name in _TOKEN_RATES), None)
    seconds = test.duration_ns / 1e9
    return Energy(test.scenario, joules, seconds, test.samples, None if rate is None else float(rate) * seconds)


_TOKEN_RATES = ("result_tokens_per_second", "result_completed_tokens_per_second")


def _gpus(file: Path) -> dict[str, float]:
    """Watts over time, as a sum of trapezia; a GPU that reports none is left out."""
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    if not file.is_file():
        return {}
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            for row in csv.DictReader(opened):
                if row["power_w"]:
                    series[f"gpu {row['gpu']}"].append((float(row["time_s"]), float(row["power_w"])))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{file} is damaged ({error!r}): run again") from error
    return {gpu: _area(points) for gpu, points in sorted(series.items()) if len(points) > 1}


def _area(points: list[tuple[float, float]]) -> float:
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


def _processors(file: Path) -> dict[str, float]:
    if not file.is_file():
        return {}
    said, fault = read_object(file)
    try:
        return {f"cpu {name}": float(joules) for name, joules in sorted((said or {})["joules"].items())}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({fault or error!r}): run again") from error


def text(run: RunFolder) -> str:
    """A block a test, each labelled."""
    found = energies(run)
    if not found:
        return (
            f"{run.folder}: no counters were read: GPUs need loadgen's extra gpu, processors a readable "
            "/sys/class/powercap\n"
        )
    lines = [f"{run.folder}: {run.benchmark} ({LABEL})"]
    for one in found:
        token = "" if one.per_token is None else f", {one.per_token:.4g} J/token"
        lines.append(
            f"  {one.scenario}: {one.per_sample:.4g} J/sample{token}; {one.total:.4g} J in {one.seconds:.1f} s"
        )
        lines += [f"    {name}: {joules:.4g} J" for name, joules in one.joules.items()]
    return "\n".join([*lines, ""])
