"""Which keys stand in the detail log, and in which order. Pure: settings and verdict in, pairs out."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from loadgen.contracts import SampleLibrary
from loadgen.errors import InputError
from loadgen.results import Verdict
from loadgen.settings import EffectiveSettings, Revision, Scenario, TestSettings

Pair = tuple[str, Any]


def own_version() -> str:
    """Of this package, as it is installed. Raises InputError if it is only a folder on Python's path."""
    try:
        return importlib.metadata.version("inference-loadgen")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError("loadgen is not installed, so its version is not known: pip install -e ./loadgen") from error


def header_entries(
    sut_name: str, name_took_ns: int, library: SampleLibrary, settings: EffectiveSettings
) -> Iterator[Pair]:
    """Who made the log. The official build facts have no counterpart in an installed Python package.

    name_took_ns: how long the system took to say its name.
    """
    yield "loadgen_version", f"{settings.requested.revision.value} @ inference-loadgen {own_version()}"
    for key in (
        "build_date_local",
        "build_date_utc",
        "git_commit_date",
        "git_log_message",
        "git_status_message",
    ):
        yield f"loadgen_{key}", ""
    yield "loadgen_file_sha1", {}
    yield "test_datetime", time.strftime("%Y-%m-%dT%H:%M:%SZ")
    yield "sut_name", sut_name
    yield "get_sut_name_duration_ns", name_took_ns
    yield "qsl_name", library.name
    yield "qsl_reported_total_count", library.total_count
    yield "qsl_reported_performance_count", library.performance_count


_REQUESTED_FIRST = {
    Scenario.SingleStream: ("single_stream_expected_latency_ns", "single_stream_target_latency_percentile"),
    Scenario.MultiStream: (
        "multi_stream_expected_latency_ns",
        "multi_stream_target_latency_percentile",
        "multi_stream_samples_per_query",
    ),
    Scenario.Server: (
        "server_target_qps",
        "server_target_latency_ns",
        "server_target_latency_percentile",
        "server_coalesce_queries",
        "server_find_peak_qps_decimals_of_precision",
        "server_find_peak_qps_boundary_step_size",
        "server_max_async_queries",
        "server_num_issue_query_threads",
    ),
    Scenario.Offline: ("offline_expected_qps",),
}
_REQUESTED = (
    "min_duration_ms max_duration_ms min_query_count max_query_count qsl_rng_seed sample_index_rng_seed "
    "schedule_rng_seed accuracy_log_rng_seed accuracy_log_probability accuracy_log_sampling_target "
    "print_timestamps performance_issue_unique performance_issue_same performance_issue_same_index "
    "performance_sample_count_override"
).split()
_DOUBLES = {f.name for f in fields(TestSettings) if f.type == "float"}  # %g, even where given as integers
_EFFECTIVE = (
    "samples_per_query target_qps target_latency_ns target_latency_percentile max_async_queries "
    "target_duration_ms min_duration_ms max_duration_ms min_query_count max_query_count min_sample_count "
    "qsl_rng_seed sample_index_rng_seed schedule_rng_seed accuracy_log_rng_seed accuracy_log_probability "
    "accuracy_log_sampling_target print_timestamps performance_issue_unique performance_issue_same "
    "performance_issue_same_index performance_sample_count"
).split()


def requested_entries(settings: EffectiveSettings) -> Iterator[Pair]:
    requested = settings.requested
    names = [*_REQUESTED_FIRST[settings.scenario], *_REQUESTED]
    if requested.revision is Revision.V6_0:
        names += ["accuracy_sample_count_override", "sample_concatenate_permutation"]
    if requested.use_token_latencies:
        names.append("use_token_latencies")
        if settings.scenario is not Scenario.Offline:
            names += ["server_ttft_latency", "server_tpot_latency"]
    yield "requested_scenario", settings.scenario.name
    yield "requested_test_mode", requested.mode.name
    for name in names:
        value = getattr(requested, name)
        yield f"requested_{name}", float(value) if name in _DOUBLES else value


def effective_entries(settings: EffectiveSettings) -> Iterator[Pair]:
    requested = settings.requested
    yield "effective_scenario", settings.scenario.name
    yield "effective_test_mode", requested.mode.name
    for name in _EFFECTIVE:
        yield f"effective_{name}", getattr(settings, name)
    if requested.revision is Revision.V6_0:
        yield "effective_accuracy_sample_count", settings.accuracy_sample_count
        yield "effective_sample_concatenate_permutation", requested.sample_concatenate_permutation


def verdict_entries(settings: EffectiveSettings, verdict: Verdict) -> Iterator[Pair]:
    yield "result_validity", "VALID" if verdict.valid else "INVALID"
    if settings.scenario is Scenario.Server:
        yield "result_perf_constraints_met", verdict.perf_constraints_met
    yield "result_min_duration_met", verdict.min_duration_met
    yield "result_min_queries_met", verdict.min_queries_met
    yield "early_stopping_met", verdict.early_stopping_met
    if not verdict.valid:
        yield "result_invalid_reason", _invalid_reason(verdict)
    for name, text in verdict.early_stopping.items():
        key = f"early_stopping_{name.lower()}_result" if name else "early_stopping_result"
        yield key, text.replace("\n", " ")
    yield from verdict.metrics.items()


def _invalid_reason(verdict: Verdict) -> str:
    """Constraints are joined by " * " as in a list; a space follows each reason but the last possible."""
    constraints = [a for a in verdict.recommendations if "target QPS to improve" in a]
    others = [a for a in verdict.recommendations if a not in constraints]
    joined = "  * ".join(constraints)
    reasons = "".join(f"{reason} " for reason in [joined, *others] if reason)
    return reasons if verdict.min_queries_met else reasons.rstrip()
