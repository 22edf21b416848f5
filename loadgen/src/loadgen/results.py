"""Judges a test: records and settings in, a verdict and the official metrics out. Pure.

Metric names are the keys of the official detail log, in its order. Times are nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from loadgen import early_stopping
from loadgen.contracts import I64
from loadgen.settings import EffectiveSettings, Mode, Scenario
from loadgen.stopping import Stopping, stop

PERCENTILES = (0.50, 0.90, 0.95, 0.97, 0.99, 0.999)
Value: TypeAlias = "bool | int | float | str"


@dataclass(frozen=True)
class Records:
    """What one performance series did, in columns. Times are ns from the start of the series."""

    scheduled_ns: I64
    """Per issued query: when it was due."""
    issued_ns: I64
    """Per issued query: when it was sent."""
    completed_ns: I64
    """Per issued sample: when it was answered; every sample must have been."""
    samples_per_query: int
    first_token_ns: I64 | None = None
    n_tokens: I64 | None = None

    @cached_property
    def latencies_ns(self) -> I64:
        """Per sample, from the time at which its query was due."""
        if self.samples_per_query == 1:
            return self.completed_ns - self.scheduled_ns
        return self.completed_ns - np.repeat(self.scheduled_ns, self.samples_per_query)


@dataclass(frozen=True)
class Headline:
    """The one number of a scenario."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Verdict:
    """The official judgement of one performance series."""

    perf_constraints_met: bool
    min_duration_met: bool
    min_queries_met: bool
    early_stopping_met: bool
    recommendations: tuple[str, ...]
    early_stopping: Mapping[str, str]
    """Explanations by what they are of: "" for latency, "TTFT" and "TPOT" for tokens."""
    target_percentiles: Mapping[str, int]
    """ns at the target percentile: of "latency" (MultiStream: of whole queries) and "first_token"."""
    tokens_per_second: float
    """Generated tokens over the sample count times the truncated mean latency; 0 without tokens."""
    metrics: Mapping[str, Value]
    stopping_reasons: tuple[str, ...] = ()
    """Why early stopping is not met, in plain words."""

    @property
    def valid(self) -> bool:
        return self.perf_constraints_met and self.min_duration_met and self.min_queries_met and self.early_stopping_met


@dataclass(frozen=True)
class Result:
    """One finished test, with the whole truth: VALID means no condition failed and no error came."""

    scenario: Scenario
    mode: Mode
    valid: bool
    reasons: tuple[str, ...]
    """Why it is INVALID; each says what to do."""
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    metrics: Mapping[str, Value]
    headline: Headline | None
    query_count: int
    sample_count: int
    duration_ns: int
    interrupted: bool
    note: str
    """Why this is INVALID although the official summary says VALID; empty if it does not."""
    details: tuple[str, ...]
    """Tracebacks of what went wrong, in order."""
    logdir: Path | None
    raised: BaseException | None = field(repr=False, compare=False)
    """What the system, the library or a signal's handler raised first."""
    latencies_ns: npt.NDArray[np.int64] = field(repr=False, compare=False)
    columns: Records | None = field(default=None, repr=False, compare=False)
    """When each query was due and sent and each sample answered, in the last set of samples."""

    def raise_failure(self) -> None:
        """Raises KeyboardInterrupt for a test that was interrupted, and RuntimeError with all it said for an error."""
        if self.interrupted:
            raise KeyboardInterrupt
        if self.errors:
            raise RuntimeError("\n".join([*self.errors, *self.details]))


def percentile(ordered: I64, p: float) -> int:
    """The official percentile of a sorted column: the element at the truncated position."""
    return int(ordered[int(len(ordered) * p)]) if len(ordered) else 0


def percentile_key(p: float, of: str) -> str:
    """The detail-log key of a percentile: result_90.00_percentile_latency_ns for .9, latency_ns."""
    return f"result_{p * 100:.2f}_percentile_{of}"


def judge(settings: EffectiveSettings, records: Records) -> Verdict:
    """Compute everything that the official LoadGen reports of one performance series."""
    latencies = np.sort(records.latencies_ns)
    queries = _query_latencies(records) if settings.scenario is Scenario.MultiStream else latencies
    tokens = _token_columns(settings, records)
    stopping = _early_stopping(settings, latencies, queries, tokens)
    duration_met = _duration_met(settings, records, latencies)
    queries_met = len(records.issued_ns) >= settings.min_query_count and len(latencies) >= settings.min_sample_count
    perf_met, perf_advice = _constraints(settings, latencies, tokens)
    column = queries if settings.scenario is Scenario.MultiStream else latencies
    advice = [*perf_advice]
    if not duration_met:
        advice.append(_DURATION_ADVICE[settings.scenario])
    if not queries_met:
        advice.append(_QUERY_ADVICE)
    return Verdict(
        perf_constraints_met=perf_met,
        min_duration_met=duration_met,
        min_queries_met=queries_met,
        early_stopping_met=all(s.met for s in stopping.values()),
        recommendations=tuple(advice),
        early_stopping={name: s.text for name, s in stopping.items()},
        target_percentiles={
            "latency": percentile(column, settings.target_latency_percentile),
            "first_token": percentile(tokens.ttft, settings.target_latency_percentile) if tokens else 0,
        },
        tokens_per_second=_rate(tokens.total * 1e9, _mean(latencies) * len(latencies)) if tokens else 0.0,
        metrics=_metrics(settings, records, latencies, queries, tokens, stopping),
        stopping_reasons=tuple(f"{name}: {s.reason}" if name else s.reason for name, s in stopping.items() if s.reason),
    )


_DURATION_ADVICE = {
    Scenario.SingleStream: "Decrease the expected latency so the loadgen pre-generates more queries.",
    Scenario.MultiStream: "Decrease the expected latency so the loadgen pre-generates more queries.",
    Scenario.Server: "Increase the target QPS so the loadgen pre-generates more queries.",
    Scenario.Offline: "Increase expected QPS so the loadgen pre-generates a larger (coalesced) query.",
}
_QUERY_ADVICE = "The test exited early, before enough queries were issued."


@dataclass(frozen=True)
class _Tokens:
    total: int
    ttft: I64  # sorted
    tpot: I64  # sorted


def _token_columns(settings: EffectiveSettings, records: Records) -> _Tokens | None:
    if not settings.requested.use_token_latencies or records.n_tokens is None:
        return None
    total = int(records.n_tokens.sum())
    if settings.scenario is Scenario.Offline or records.first_token_ns is None:
        return _Tokens(total, np.empty(0, np.int64), np.empty(0, np.int64))
    due = np.repeat(records.scheduled_ns, records.samples_per_query)
    ttft = records.first_token_ns - due
    generated = records.completed_ns - records.first_token_ns
    steps = records.n_tokens - 1
    tpot = np.sign(generated) * np.sign(steps) * (np.abs(generated) // np.maximum(1, np.abs(steps)))
    return _Tokens(total, np.sort(ttft), np.sort(tpot))


def _query_latencies(records: Records) -> I64:
    """Sorted latency of whole queries: that of the slowest sample."""
    if not len(records.completed_ns):
        return np.empty(0, np.int64)
    slowest = records.completed_ns.reshape(len(records.issued_ns), -1).max(axis=1)
    return np.sort(slowest - records.scheduled_ns)


def _duration_met(settings: EffectiveSettings, records: Records, latencies: I64) -> bool:
    needed = settings.min_duration_ms * 1_000_000
    if not len(records.issued_ns):
        return needed <= 0
    if settings.scenario is Scenario.Offline:
        return int(latencies[-1]) >= needed
    column = records.scheduled_ns if settings.scenario is Scenario.Server else records.issued_ns
    return int(column[-1]) >= needed


def _constraints(settings: EffectiveSettings, latencies: I64, tokens: _Tokens | None) -> tuple[bool, list[str]]:
    if settings.scenario is not Scenario.Server:
        return True, []
    p, reduce = settings.target_latency_percentile, "Reduce target QPS to improve latency."
    if tokens is None:
        met = percentile(latencies, p) <= settings.target_latency_ns
        return met, [] if met else [reduce]
    advice = []
    if percentile(tokens.ttft, p) > settings.requested.server_ttft_latency:
        advice.append(f"TTFT constrain not met: {reduce}")
    if percentile(tokens.tpot, p) > settings.requested.server_tpot_latency:
        advice.append(f"TPOT constrain not met: {reduce}")
    return not advice, advice


def _early_stopping(
    settings: EffectiveSettings, latencies: I64, queries: I64, tokens: _Tokens | None
) -> dict[str, Stopping]:
    """By what it is of. Token tests look at TPOT first and skip TTFT if that fails, as officially."""
    if tokens is None:
        column = queries if settings.scenario is Scenario.MultiStream else latencies
        return {"": stop(settings, column, settings.target_latency_ns)}
    multi = settings.scenario is Scenario.MultiStream  # looks at query latencies even for tokens
    tpot = stop(settings, queries if multi else tokens.tpot, settings.requested.server_tpot_latency)
    if not tpot.met:
        return {"TTFT": Stopping(True, ""), "TPOT": tpot}
    ttft = stop(settings, queries if multi else tokens.ttft, settings.requested.server_ttft_latency)
    return {"TTFT": ttft, "TPOT": tpot}


def _metrics(
    settings: EffectiveSettings,
    records: Records,
    latencies: I64,
    queries: I64,
    tokens: _Tokens | None,
    stopping: Mapping[str, Stopping],
) -> dict[str, Value]:
    """Every result_* and early_stopping_latency_* value of the official detail log, in its order."""
    metrics: dict[str, Value] = {"result_query_count": len(records.issued_ns)}
    if not len(latencies):
        return metrics
    n, mean = len(latencies), _mean(latencies)
    last = _last_query(records)
    estimate = next(iter(stopping.values())).estimate_ns
    if settings.scenario is Scenario.SingleStream:
        second = early_stopping.max_over(n, 0.99)
        enough = n >= early_stopping.min_under(1, 0.99) + 1
        column = latencies if tokens is None else tokens.ttft
        metrics["result_qps_with_loadgen_overhead"] = _rate(n - 1, last.issued_s)
        metrics["result_qps_without_loadgen_overhead"] = _rate(1e9, mean)
        metrics["early_stopping_latency_ss"] = estimate
        metrics["early_stopping_latency_ms"] = int(column[n - second]) if enough else 0
    elif settings.scenario is Scenario.MultiStream:
        metrics |= _spread("result_{}_query_latency_ns", "result_{}_percentile_per_query_latency_ns", queries)
        metrics["early_stopping_latency_ms"] = estimate
    elif settings.scenario is Scenario.Server:
        over = n - int(np.searchsorted(latencies, settings.target_latency_ns, side="right"))
        metrics["result_overlatency_query_count"] = over
        metrics["result_scheduled_samples_per_sec"] = _rate(n - 1, last.scheduled_s)
        metrics["result_completed_samples_per_sec"] = _rate(n - 1, last.done_s)
    else:
        metrics["result_samples_per_second"] = _rate(n, int(latencies[-1]) / 1e9)
    metrics |= _spread("result_{}_latency_ns", "result_{}_percentile_latency_ns", latencies)
    if tokens is not None:
        metrics |= _token_metrics(settings, tokens, latencies, mean, last)
    if settings.requested.infer_token_latencies:
        metrics |= _inferred(settings, metrics)
    return metrics


def _inferred(settings: EffectiveSettings, metrics: Mapping[str, Value]) -> dict[str, Value]:
    """Tokens a second of a system that does not count them: so many a sample."""
    per_sample = settings.requested.token_latency_scaling_factor
    if settings.scenario is Scenario.Server:
        rate = float(metrics["result_completed_samples_per_sec"])
        return {"result_inferred_completed_tokens_per_second": rate * per_sample}
    if settings.scenario is Scenario.Offline:
        return {"result_inferred_tokens_per_second": float(metrics["result_samples_per_second"]) * per_sample}
    return {}


def _token_metrics(
    settings: EffectiveSettings, tokens: _Tokens, latencies: I64, mean: int, last: _Last
) -> dict[str, Value]:
    if settings.scenario is Scenario.Offline:
        return {"result_tokens_per_second": _rate(tokens.total, int(latencies[-1]) / 1e9)}
    metrics = _spread("result_first_token_{}_latency_ns", "result_first_token_{}_percentile_latency_ns", tokens.ttft)
    metrics["result_token_throughput_with_loadgen_overhead"] = _rate(tokens.total, last.issued_s)
    # tokens a nanosecond under a key that means a second: the official log has it so
    metrics["result_token_throughput"] = _rate(tokens.total, mean * len(latencies))
    spread = _spread("result_time_to_output_token_{}", "result_time_per_output_token_{}_percentile_ns", tokens.tpot)
    metrics |= {k: v for k, v in spread.items() if "percentile" in k}
    metrics |= {k: v for k, v in spread.items() if "percentile" not in k}
    metrics["result_completed_tokens_per_second"] = _rate(tokens.total, last.done_s)
    return metrics


@dataclass(frozen=True)
class _Last:
    """When the last query was due, sent and answered, in seconds from the start."""

    scheduled_s: float
    issued_s: float
    done_s: float


def _last_query(records: Records) -> _Last:
    done = records.completed_ns[-records.samples_per_query :].max()
    return _Last(int(records.scheduled_ns[-1]) / 1e9, int(records.issued_ns[-1]) / 1e9, int(done) / 1e9)


def _rate(count: float, time: float) -> float:
    """count / time as C++ divides doubles: 0 / 0 is not a number, anything else over 0 is infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.float64(count) / np.float64(time))


def _mean(column: I64) -> int:
    return int(column.sum()) // len(column) if len(column) else 0


def _spread(name: str, percentile_name: str, ordered: I64) -> dict[str, Value]:
    """Minimum, maximum, mean and the official percentiles of a sorted column."""
    values: dict[str, Value] = {
        name.format("min"): int(ordered[0]),
        name.format("max"): int(ordered[-1]),
        name.format("mean"): _mean(ordered),
    }
    for p in PERCENTILES:
        values[percentile_name.format(f"{p * 100:.2f}")] = percentile(ordered, p)
    return values


def headline(settings: EffectiveSettings, verdict: Verdict) -> Headline | None:
    """The number by which the scenario is ranked."""
    key, name, unit, scale = {
        Scenario.SingleStream: ("early_stopping_latency_ss", "latency p90, early stopping", "ms", 1e-6),
        Scenario.MultiStream: ("early_stopping_latency_ms", "query latency p99, early stopping", "ms", 1e-6),
        Scenario.Server: ("result_completed_samples_per_sec", "completed rate", "samples/s", 1.0),
        Scenario.Offline: ("result_samples_per_second", "throughput", "samples/s", 1.0),
    }[settings.scenario]
    if settings.requested.use_token_latencies:
        token_keys = {
            Scenario.Server: "result_completed_tokens_per_second",
            Scenario.Offline: "result_tokens_per_second",
        }
        if settings.scenario in token_keys:
            key, unit = token_keys[settings.scenario], "tokens/s"
    value = verdict.metrics.get(key)
    return None if value is None else Headline(name, float(value) * scale, unit)
