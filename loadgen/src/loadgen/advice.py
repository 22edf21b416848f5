"""Why a test is INVALID, with the figures that were measured and what to set instead.

The official log has recommendations of its own, word for word (`Verdict.recommendations`); these are for people. A
setting is named as `TestSettings` has it, with the option of the command line that sets it.
"""

from __future__ import annotations

from collections.abc import Iterator

from loadgen.results import Records, Verdict
from loadgen.settings import EffectiveSettings, Scenario

_LESS, _MORE = 0.9, 1.2
"""Shares of a measured rate that are proposed: a little less than a system answers, more than a series needs."""


def advice(settings: EffectiveSettings, verdict: Verdict, records: Records) -> Iterator[str]:
    """A sentence for each condition that failed, early stopping left out."""
    if not verdict.perf_constraints_met:
        yield from _too_late(settings, verdict)
    if not verdict.min_duration_met:
        yield _too_short(settings, verdict, records)
    if not verdict.min_queries_met:
        issued, answered = len(records.issued_ns), len(records.completed_ns)
        yield (
            f"{issued:,} queries with {answered:,} samples were answered, where {settings.min_query_count:,} queries "
            f"and {settings.min_sample_count:,} samples are asked (min_query_count): let the test run to its end"
        )


def _too_late(settings: EffectiveSettings, verdict: Verdict) -> Iterator[str]:
    share, requested = f"p{100 * settings.target_latency_percentile:g}", settings.requested
    slower = f"try {_figure(_bearable(settings, verdict))} for server_target_qps (--qps)"
    at = f"at {_figure(settings.target_qps)} queries/s"
    if not requested.use_token_latencies:
        seen, limit = verdict.target_percentiles["latency"], settings.target_latency_ns
        yield f"latency {share} is {_time(seen)}, the limit {_time(limit)}, {at}: {slower}"
        return
    keys = {
        "time to first token": ("first_token_{}_latency_ns", requested.server_ttft_latency),
        "time per output token": ("time_per_output_token_{}_ns", requested.server_tpot_latency),
    }
    for name, (key, limit) in keys.items():
        seen = int(verdict.metrics.get(f"result_{key.format(_percentile(settings))}", 0))
        if seen > limit:
            yield f"{name} {share} is {_time(seen)}, the limit {_time(limit)}, {at}: {slower}"


def _percentile(settings: EffectiveSettings) -> str:
    return f"{100 * settings.target_latency_percentile:.2f}_percentile"


def _bearable(settings: EffectiveSettings, verdict: Verdict) -> float:
    """A rate to try next: below what the system answered, if it fell behind, else below what was asked."""
    answered = float(verdict.metrics.get("result_completed_samples_per_sec", settings.target_qps))
    return _LESS * min(answered, settings.target_qps)


def _too_short(settings: EffectiveSettings, verdict: Verdict, records: Records) -> str:
    asked = settings.min_duration_ms * 1_000_000
    lasted = int(records.completed_ns.max()) if len(records.completed_ns) else 0
    said = f"the test lasted {_time(lasted)}, where {_time(asked)} are asked (min_duration): "
    metrics = verdict.metrics
    if settings.scenario in (Scenario.SingleStream, Scenario.MultiStream):
        prefix = "single" if settings.scenario is Scenario.SingleStream else "multi"
        key = "result_mean_latency_ns" if prefix == "single" else "result_mean_query_latency_ns"
        mean = int(metrics.get(key, 0))
        return f"{said}set {prefix}_stream_expected_latency_ns to {_figure(_LESS * mean)} (target_latency in ms)"
    if settings.scenario is Scenario.Server:
        return f"{said}raise server_target_qps (--qps), so that more queries are made"
    rate = float(metrics.get("result_samples_per_second", settings.target_qps))
    return f"{said}set offline_expected_qps (--qps) to {_figure(_MORE * rate)}, so that more samples are made"


def _time(ns: float) -> str:
    """`412 us`, `6.8 ms`, `130 ms`, `6.8 s`."""
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        if ns >= size:
            return f"{_figure(ns / size)} {unit}"
    return f"{_figure(ns / 1e3)} us"


def _figure(value: float) -> str:
    """Three digits that count, never as a power of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
