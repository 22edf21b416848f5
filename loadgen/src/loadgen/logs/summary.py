"""The text of `mlperf_log_summary.txt`, line for line as the official LoadGen prints it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loadgen.logs.detail import number
from loadgen.logs.files import LogError, opened
from loadgen.results import PERCENTILES, Value, Verdict, percentile_key
from loadgen.settings import EffectiveSettings, Revision, Scenario
from loadgen.stopping import ordinal

_RULE = "=" * 48


def read_summary(path: Path) -> dict[str, str]:
    """The `name : value` lines of a summary, ours or the official LoadGen's, in order; a name's first value counts.

    Raises LogError for a file that is not a summary.
    """
    with opened(path) as file:
        text = file.read()
    if "encountered" not in text:
        raise LogError(f"{path}: the closing lines on warnings and errors are missing: no summary, or cut off")
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith((" *", "  *")):
            found.setdefault(name.strip(), value.strip())
    return found


def summary_text(
    settings: EffectiveSettings, verdict: Verdict | None, sut_name: str, warnings: int, errors: int
) -> str:
    """The whole summary. An accuracy test (no verdict) has only the two closing lines."""
    lines: list[str] = []
    if verdict is not None:
        lines += [_RULE, "MLPerf Results Summary", _RULE]
        lines += [f"SUT name : {sut_name}", f"Scenario : {settings.scenario.name}"]
        lines += [f"Mode     : {settings.mode.name}", *_headline(settings, verdict)]
        lines += _verdict(settings, verdict)
        lines += ["", _RULE, "Additional Stats", _RULE, *_stats(settings, verdict)]
        lines += ["", _RULE, "Test Parameters Used", _RULE, *_parameters(settings)]
    return "\n".join([*lines, *_trailer(warnings, errors)]) + "\n"


def _headline(settings: EffectiveSettings, verdict: Verdict) -> list[str]:
    m, tokens = verdict.metrics, settings.requested.use_token_latencies
    p = settings.target_latency_percentile
    name = ordinal(p, settings.requested.revision)
    if settings.scenario is Scenario.Server:
        lines = [f"Completed samples per second    : {_fixed(m, 'result_completed_samples_per_sec')}"]
        if tokens:
            lines.append(f"Completed tokens per second: {_fixed(m, 'result_completed_tokens_per_second')}")
        if settings.requested.infer_token_latencies:
            rate = _fixed(m, "result_inferred_completed_tokens_per_second")
            lines.append(f"Completed tokens per second (inferred): {rate}")
        return lines
    if settings.scenario is Scenario.Offline:
        lines = [f"Samples per second: {_general(m, 'result_samples_per_second')}"]
        if tokens:
            lines.append(f"Tokens per second: {_general(m, 'result_tokens_per_second')}")
        if settings.requested.infer_token_latencies:
            lines.append(f"Tokens per second (inferred): {_general(m, 'result_inferred_tokens_per_second')}")
        return lines
    target = verdict.target_percentiles
    lines = [f"{name} percentile latency (ns) : {target['latency']}"]
    if tokens:
        lines.append(f"{name} first token percentile latency (ns) : {target['first_token']}")
    return lines


def _verdict(settings: EffectiveSettings, verdict: Verdict) -> list[str]:
    lines = [f"Result is : {'VALID' if verdict.valid else 'INVALID'}"]
    if settings.scenario is Scenario.Server:
        lines.append(f"  Performance constraints satisfied : {_yes(verdict.perf_constraints_met)}")
    lines += [
        f"  Min duration satisfied : {_yes(verdict.min_duration_met)}",
        f"  Min queries satisfied : {_yes(verdict.min_queries_met)}",
        f"  Early stopping satisfied: {_yes(verdict.early_stopping_met)}",
    ]
    if not verdict.valid:
        lines.append("Recommendations:")
        lines += [f" * {advice}" for advice in verdict.recommendations]
        if not verdict.min_queries_met:
            lines.append("   See the detailed log for why this may have occurred.")
    if settings.scenario is not Scenario.Offline:
        for name, text in verdict.early_stopping.items():
            lines += [f"{name} Early Stopping Result:".lstrip(), text]
    return lines


def _stats(settings: EffectiveSettings, verdict: Verdict) -> list[str]:
    m, tokens = verdict.metrics, settings.requested.use_token_latencies
    lines: list[str] = []
    if settings.scenario is Scenario.SingleStream:
        lines += [
            f"QPS w/ loadgen overhead         : {_fixed(m, 'result_qps_with_loadgen_overhead')}",
            f"QPS w/o loadgen overhead        : {_fixed(m, 'result_qps_without_loadgen_overhead')}",
            "",
        ]
    elif settings.scenario is Scenario.Server:
        lines.append(f"Scheduled samples per second : {_fixed(m, 'result_scheduled_samples_per_sec')}")
    multi = settings.scenario is Scenario.MultiStream
    if multi:
        lines.append("Per-query latency:  ")
    of = "query_latency_ns" if multi else "latency_ns"
    lines += [
        f"{f'{bound.title()} latency (ns)':<32}: {m.get(f'result_{bound}_{of}', 0)}" for bound in ("min", "max", "mean")
    ]
    key = "per_query_latency_ns" if multi else "latency_ns"
    lines += [f"{p * 100:.2f} percentile latency (ns)   : {m.get(percentile_key(p, key), 0)}" for p in PERCENTILES]
    return [*lines, *(_token_stats(settings, verdict) if tokens else [])]


def _token_stats(settings: EffectiveSettings, verdict: Verdict) -> list[str]:
    m, scenario = verdict.metrics, settings.scenario
    lines = [""]
    if scenario is Scenario.Offline:
        return lines
    if scenario is Scenario.SingleStream:
        lines += [
            f"TPS w/ loadgen overhead         : {_fixed(m, 'result_token_throughput_with_loadgen_overhead')}",
            f"TPS w/o loadgen overhead        : {verdict.tokens_per_second:.2f}",
        ]
    elif scenario is Scenario.Server:
        tps = _fixed(m, "result_completed_tokens_per_second")
        lines.append(f"Completed tokens per second                 : {tps}")
    for bound in ("min", "max", "mean"):
        value = m.get(f"result_first_token_{bound}_latency_ns", 0)
        lines.append(f"{f'{bound.title()} First Token latency (ns)':<44}: {value}")
    for p in PERCENTILES:
        value = m.get(f"result_first_token_{p * 100:.2f}_percentile_latency_ns", 0)
        lines.append(f"{p * 100:.2f} percentile first token latency (ns)   : {value}")
    word = "per" if settings.requested.revision is Revision.V6_0 else "to"
    lines.append("")
    for bound in ("min", "max", "mean"):
        value = m.get(f"result_time_to_output_token_{bound}", 0)
        lines.append(f"{f'{bound.title()} Time {word} Output Token (ns)':<{43 + len(word)}}: {value}")
    for p in PERCENTILES:
        value = m.get(f"result_time_per_output_token_{p * 100:.2f}_percentile_ns", 0)
        lines.append(f"{p * 100:.2f} percentile time to output token (ns)   : {value}")
    return lines


def _parameters(settings: EffectiveSettings) -> list[str]:
    requested = settings.requested
    lines = [
        f"samples_per_query : {settings.samples_per_query}",
        f"target_qps : {number(settings.target_qps)}",
    ]
    if requested.use_token_latencies:
        lines += [
            f"ttft_latency (ns): {requested.server_ttft_latency}",
            f"tpot_latency (ns): {requested.server_tpot_latency}",
        ]
    else:
        lines.append(f"target_latency (ns): {settings.target_latency_ns}")
    lines += [
        f"max_async_queries : {settings.max_async_queries}",
        f"min_duration (ms): {settings.min_duration_ms}",
        f"max_duration (ms): {settings.max_duration_ms}",
    ]
    names = ["min_query_count", "max_query_count", "qsl_rng_seed", "sample_index_rng_seed"]
    names += ["schedule_rng_seed", "accuracy_log_rng_seed", "accuracy_log_probability"]
    names += ["accuracy_log_sampling_target", "print_timestamps", "performance_issue_unique"]
    names += ["performance_issue_same", "performance_issue_same_index", "performance_sample_count"]
    if requested.revision is Revision.V6_0:
        names.append("accuracy_sample_count")
    lines += [f"{name} : {_plain(getattr(settings, name))}" for name in names]
    if requested.revision is Revision.V6_0 and requested.sample_concatenate_permutation:
        lines += _EQUAL_ISSUE_WARNING
    return lines


_EQUAL_ISSUE_WARNING = [
    "WARNING: sample_concatenate_permutation was set to true. ",
    "Generated samples per query might be different as the one in the setting.",
    "Check the generated_samples_per_query line in the detailed log for the real",
    "samples_per_query value",
]


def _trailer(warnings: int, errors: int) -> list[str]:
    def line(count: int, one: str, many: str, none: str) -> str:
        if not count:
            return f"No {none} encountered during test."
        return f"{count} {one if count == 1 else many} encountered. See detailed log."

    return [
        "",
        line(warnings, "warning", "warnings", "warnings"),
        "",
        line(errors, "ERROR", "ERRORS", "errors"),
    ]


def _fixed(metrics: Mapping[str, Value], key: str) -> str:
    value = float(metrics.get(key, 0.0))
    return "-nan" if value != value else f"{value:.2f}"  # as x86 prints 0 / 0


def _general(metrics: Mapping[str, Value], key: str) -> str:
    return number(float(metrics.get(key, 0.0)))


def _yes(met: bool) -> str:
    return "Yes" if met else "NO"


def _plain(value: object) -> str:
    return number(value) if isinstance(value, float) else str(int(value))  # type: ignore[call-overload]
