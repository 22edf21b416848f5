"""Is a test's run as fast as the performance run? As the official `verify_performance.py` of TEST01, 04 and 05 asks.

One thing is asked otherwise: the official script of TEST04 turns the latencies of streams into rates, and then takes
these for nanoseconds, so that its wide bounds, meant for very short latencies, hold for every stream.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loadgen.compliance.verdict import Check
from loadgen.logs import LogError, metrics_of, read_detail
from loadgen.results import Value
from loadgen.rules import ComplianceTest
from loadgen.settings import Scenario

_KEYS = {
    Scenario.SingleStream: "early_stopping_latency_ss",
    Scenario.MultiStream: "early_stopping_latency_ms",
    Scenario.Server: "result_completed_samples_per_sec",
    Scenario.Offline: "result_samples_per_second",
}
_OF_ANY_LENGTH = {
    Scenario.SingleStream: "result_90.00_percentile_latency_ns",
    Scenario.MultiStream: "result_99.00_percentile_per_query_latency_ns",
    Scenario.Server: "result_scheduled_samples_per_sec",
    Scenario.Offline: "result_samples_per_second",
}
_STREAMS = (Scenario.SingleStream, Scenario.MultiStream)


@dataclass(frozen=True)
class Speed:
    """What is compared of a run."""

    scenario: str
    figure: float
    """Streams: a latency in ns; else samples a second."""
    valid: bool
    errors: int
    target_latency_ns: int


def keys_of(rules: ComplianceTest, early_stopping: bool) -> Mapping[Scenario, str]:
    """What is compared, by its key in the detail log. early_stopping: do the round's results follow from it?"""
    if rules.any_length:
        return _OF_ANY_LENGTH
    return _KEYS if early_stopping else {**_KEYS, Scenario.SingleStream: _OF_ANY_LENGTH[Scenario.SingleStream]}


def read_speed(folder: Path, scenario: Scenario, keys: Mapping[Scenario, str] = _KEYS) -> Speed:
    """Of the run whose logs lie in this folder. Raises LogError."""
    file = folder / "mlperf_log_detail.txt"
    entries = read_detail(file)
    found = metrics_of(entries)
    return Speed(
        scenario=str(found.get("effective_scenario", "-")),
        figure=_number(file, found, keys[scenario]),
        valid=found.get("result_validity") == "VALID",
        errors=sum(entry.is_error for entry in entries),
        target_latency_ns=int(_number(file, found, "effective_target_latency_ns")),
    )


def _number(file: Path, found: Mapping[str, Value], key: str) -> float:
    """0 for a key that the log has not."""
    value = found.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise LogError(f"{file}: {key} is {value!r}, which is no number: the log is damaged, run the test again")
    return float(value)


def compare(rules: ComplianceTest, scenario: Scenario, reference: Speed, run: Speed) -> tuple[Check, str]:
    """The check, and the text of verify_performance.txt."""
    passed, why = _judged(rules, scenario, reference, run)
    official = ""
    if not why and passed != _official(rules, scenario, reference, run):
        official = f"the official script says TEST {'FAIL' if passed else 'PASS'}"
    bounds = _bounds(rules, scenario, reference, wide=_is_short(rules, scenario, reference.figure))
    said = why or f"{_shown(scenario, run.figure)}, {_change(reference, run)}, {_asked(rules, scenario, bounds)}"
    lines = [
        f"reference score = {reference.figure:.10g}",
        f"test score = {run.figure:.10g}",
        *([f"Note: {official}: it compares rates with a limit that is meant in ns"] if official else []),
        "TEST PASS" if passed else f"TEST FAIL: {why or said}",
    ]
    lines += [f"WARNING: {one.errors} ERROR reported in {name} results" for name, one in _with_errors(reference, run)]
    return Check("performance", passed, said, official), "\n".join(lines) + "\n"


def _judged(rules: ComplianceTest, scenario: Scenario, reference: Speed, run: Speed) -> tuple[bool, str]:
    """(passed, why nothing could be compared)."""
    for name, one in (("reference", reference), ("test", run)):
        if one.scenario != scenario.name:
            return False, f"the {name} run's logs are of {one.scenario}"
        if not one.valid and not rules.any_length:
            return False, f"the {name} run is INVALID"
        if not one.figure > 0:
            return False, f"the {name} run's logs have no {keys_of(rules, True)[scenario]}"
    if reference.target_latency_ns != run.target_latency_ns:
        return False, f"the runs' target latencies differ: {reference.target_latency_ns} and {run.target_latency_ns} ns"
    wide = _is_short(rules, scenario, reference.figure)
    return _within(run.figure, _bounds(rules, scenario, reference, wide)), ""


def _official(rules: ComplianceTest, scenario: Scenario, reference: Speed, run: Speed) -> bool:
    """The official script's answer: a rate of TEST04 counts as a latency where the bounds are chosen."""
    taken = 1e9 / reference.figure if rules.as_rate and scenario in _STREAMS else reference.figure
    return _within(run.figure, _bounds(rules, scenario, reference, _is_short(rules, scenario, taken)))


def _is_short(rules: ComplianceTest, scenario: Scenario, figure: float) -> bool:
    return scenario in rules.relaxed_below and figure <= rules.relaxed_below[scenario]


def _bounds(rules: ComplianceTest, scenario: Scenario, reference: Speed, wide: bool) -> tuple[float, float]:
    """What the figure must lie between, ends excluded."""
    gain, loss = (rules.relaxed if wide and share is not None else share for share in (rules.max_gain, rules.max_loss))
    figure, lowest, highest = reference.figure, -1.0, float("inf")
    if scenario not in _STREAMS:
        return figure * (1 - loss) if loss is not None else lowest, figure * (1 + gain) if gain is not None else highest
    if gain is not None:
        lowest = figure / (1 + gain) if rules.as_rate else figure * (1 - gain)
    return lowest, highest if loss is None else figure * (1 + loss)


def _within(figure: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] < figure < bounds[1]


def _shown(scenario: Scenario, figure: float) -> str:
    return f"{figure / 1e6:,.4g} ms" if scenario in _STREAMS else f"{figure:,.4g}/s"


def _change(reference: Speed, run: Speed) -> str:
    return f"{100 * (run.figure / reference.figure - 1):+.1f} %"


def _asked(rules: ComplianceTest, scenario: Scenario, bounds: tuple[float, float]) -> str:
    """`between 1.2 and 1.4 ms`, `below 1.4 ms`, `above 120/s`."""
    low, high = (_shown(scenario, bound) for bound in bounds)
    if bounds == (-1, float("inf")):
        return "asked for no more than to be measured"
    if bounds[0] < 0:
        return f"asked for below {high}"
    return f"asked for above {low}" if bounds[1] == float("inf") else f"asked for between {low} and {high}"


def _with_errors(reference: Speed, run: Speed) -> list[tuple[str, Speed]]:
    return [(name, one) for name, one in (("reference", reference), ("test", run)) if one.errors]
