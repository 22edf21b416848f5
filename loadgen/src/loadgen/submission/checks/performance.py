"""A performance run's detail log, judged as a result's, or as that of a compliance test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loadgen.settings import Scenario
from loadgen.submission.checks.context import Subject
from loadgen.submission.checks.systems import is_network
from loadgen.submission.findings import Finding, Official
from loadgen.submission.reading import Log
from loadgen.submission.requirements import STREAMS

INFERRED_FROM = {"Offline": ("SingleStream", "MultiStream"), "MultiStream": ("SingleStream",)}
"""Scenario -> those whose run may stand for it, on edge."""
INFERRED_SAMPLES = 8  # of a MultiStream query
_READ_FIRST = {"Offline": "result_samples_per_second", "Server": "result_scheduled_samples_per_sec"}
"""What the official checker reads of every model, those too whose result has another key."""
_FIRST_TOKEN = "result_first_token_99.00_percentile_latency_ns"
_EACH_TOKEN = "result_time_per_output_token_99.00_percentile_ns"


@dataclass(frozen=True)
class Run:
    """A run to be judged."""

    subject: Subject
    path: str
    """Of its detail log."""
    log: Log
    audit: str = ""
    """The compliance test that it is of; empty: it is a result's."""

    @property
    def scenario(self) -> str:
        """That it really ran."""
        return str(self.log.values.get("effective_scenario"))

    def finding(
        self, rule: str, key: str = "", observed: Any = "", required: Any = "", official: Official | None = None
    ) -> Finding:
        seen = self.log.values.get(key, "not there") if observed == "" and key else observed
        return self.subject.finding(rule, self.path, key, seen, required, official)


def check_performance(subject: Subject, has_power: bool) -> Iterator[Finding]:
    """performance/run_1: its files, and its log."""
    place = f"{subject.place.path}/performance/run_1"
    if not subject.at(place).is_dir():
        yield subject.finding("performance-missing", place, observed="not there")
        return
    tree = subject.requirements.tree
    wanted = [*tree.performance_files, *(tree.power_performance_files if has_power else ())]
    odd = subject.odd_files(place, wanted, tree.performance_optional)
    if odd:
        yield subject.finding("performance-files", place, observed=", ".join(odd), required=", ".join(wanted))
    yield from check_run(run_of(subject, place))


def run_of(subject: Subject, folder: str, audit: str = "") -> Run:
    path = f"{folder}/mlperf_log_detail.txt"
    return Run(subject, path, subject.log(path), audit)


def check_run(run: Run) -> Iterator[Finding]:
    """Everything that a detail log shows of a performance run; one that is missing shows nothing."""
    if run.log.is_missing:
        return
    if run.log.fault:
        yield run.finding("log-unreadable", observed=run.log.fault)
        return
    for error in counted_errors(run.log, run.subject)[:3]:
        yield run.finding("log-errors", observed=error, required="none")
    if run.scenario not in Scenario.__members__:
        yield run.finding("log-key-missing", "effective_scenario", required="a scenario")
        return
    for check in _CHECKS:
        yield from check(run)


def counted_errors(log: Log, subject: Subject) -> list[str]:
    """Errors of a log, without those that the round forgives."""
    ignored = subject.requirements.round.ignored_errors
    return [error for error in log.errors if not any(text in error for text in ignored)]


def _validity(run: Run) -> Iterator[Finding]:
    if run.log.values.get("result_validity") != "VALID":
        forgotten = Official.SILENT if run.subject.needs.rules.token_limits else None  # it overwrites this verdict
        yield run.finding("result-invalid", "result_validity", required="VALID", official=forgotten)


def _result(run: Run) -> Iterator[Finding]:
    key = result_key(run.subject, run.scenario)
    measured = measure(run)
    if run.log.number(key) is None:
        yield run.finding("log-key-missing", key, required="a number")
    elif measured.value is None:
        yield run.finding("log-key-missing", "what the result is inferred from", "not there", "a number")
    elif run.log.number(_READ_FIRST.get(run.scenario, key)) is None:
        yield run.finding("log-key-missing", _READ_FIRST[run.scenario], required="a number")
    elif measured.value <= 0 and not measured.inferred:
        passes = Official.LOGS if measured.value < 0 or run.audit else None
        yield run.finding("result-zero", key, official=passes)


def _sample_count(run: Run) -> Iterator[Finding]:
    key, wanted = "effective_performance_sample_count", run.subject.needs.rules.performance_sample_count
    yield from _at_least(run, "sample-count", key, wanted)


def _at_least(run: Run, rule: str, key: str, wanted: float) -> Iterator[Finding]:
    value = run.log.number(key)
    if value is None:
        yield run.finding("log-key-missing", key, required="a number")
    elif value < wanted:
        yield run.finding(rule, key, required=f">= {wanted}")


def _seeds(run: Run) -> Iterator[Finding]:
    for name, seed in run.subject.requirements.seeds(run.audit).items():
        key = f"effective_{name}"
        if run.log.values.get(key) != seed:
            yield run.finding("seed", key, required=seed)


def _early_stopping(run: Run) -> Iterator[Finding]:
    decides = run.subject.requirements.round.early_stopping and run.scenario != "Offline"
    if decides and not run.log.values.get("early_stopping_met"):
        yield run.finding("early-stopping", "early_stopping_met", required=True)


def _target_latency(run: Run) -> Iterator[Finding]:
    most = run.subject.needs.rules.server_latency_ns
    if run.scenario != "Server" or most is None:
        return
    value = run.log.number("effective_target_latency_ns")
    if value is None:
        yield run.finding("log-key-missing", "effective_target_latency_ns", required="a number")
    elif value > most:
        yield run.finding("target-latency", "effective_target_latency_ns", required=f"<= {most}")


def _counts(run: Run) -> Iterator[Finding]:
    rules = run.subject.needs.rules
    fewest = rules.checked_min_queries.get(Scenario[run.scenario])
    if fewest and (run.scenario == "Offline" or not run.subject.requirements.round.early_stopping):
        yield from _at_least(run, "min-queries", "effective_min_query_count", fewest)
    if run.scenario == "Offline":
        yield from _at_least(run, "offline-samples", "effective_samples_per_query", rules.offline_min_samples)


def _duration(run: Run) -> Iterator[Finding]:
    shortest = run.subject.requirements.round.min_duration_ms(Scenario[run.scenario])
    yield from _at_least(run, "min-duration", "effective_min_duration_ms", shortest)


def _tokens(run: Run) -> Iterator[Finding]:
    rules = run.subject.needs.rules.token_limits
    if rules is None:
        return
    limits = (rules.first_ns, rules.each_ns)
    if not run.log.values.get("requested_use_token_latencies"):
        yield run.finding("token-latencies-off", "requested_use_token_latencies", required=True)
    elif run.subject.place.scenario != "Offline":
        for key, limit in zip((_FIRST_TOKEN, _EACH_TOKEN), limits, strict=True):
            value = run.log.number(key)
            if value is None:
                yield run.finding("log-key-missing", key, required="a number")
            elif value >= limit:
                yield run.finding("token-latency", key, required=f"< {limit}")
        for key, limit in zip(("requested_server_ttft_latency", "requested_server_tpot_latency"), limits, strict=True):
            if (run.log.number(key) or 0) > limit:
                yield run.finding("token-limits", key, required=f"<= {limit}")


def _inferred(run: Run) -> Iterator[Finding]:
    asked = run.subject.place.scenario
    if asked == run.scenario:
        return
    is_edge = run.subject.system.get("system_type") == "edge"
    if run.scenario not in INFERRED_FROM.get(asked, ()) or not is_edge:
        wanted = f"{asked}{'' if is_edge else '; nothing is inferred but on edge'}"
        yield run.finding("scenario-differs", "effective_scenario", required=wanted)
    elif asked == "MultiStream" and run.log.number("early_stopping_latency_ms") == 0:
        passes = Official.LOGS if run.audit else None
        yield run.finding("inferred-no-estimate", "early_stopping_latency_ms", required="above 0", official=passes)


def _settings(run: Run) -> Iterator[Finding]:
    """What a user's config may not change, and the official checker does not see."""
    if run.log.values.get("effective_test_mode") != "PerformanceOnly":
        yield run.finding("performance-mode", "effective_test_mode", required="PerformanceOnly")
    rules = run.subject.requirements.round.scenarios[Scenario[run.scenario]]
    share, value = rules.get("target_latency_percentile"), run.log.number("effective_target_latency_percentile")
    if share is not None and value is not None and abs(100 * value - share) > 1e-9:
        yield run.finding("percentile", "effective_target_latency_percentile", required=share / 100)
    size = rules.get("samples_per_query")
    if run.scenario == "MultiStream" and size and run.log.values.get("effective_samples_per_query") != size:
        yield run.finding("multistream-size", "effective_samples_per_query", required=int(size))
    for key in ("effective_performance_issue_unique", "effective_performance_issue_same"):
        if run.log.values.get(key) and not run.audit:
            yield run.finding("issue-mode", key, required=False)


def _network(run: Run) -> Iterator[Finding]:
    name = run.log.text("sut_name") or ""
    if (
        run.subject.place.division != "closed"
        and is_network(run.subject.system)
        and run.subject.requirements.tree.network_sut_name not in name
    ):
        yield run.finding("sut-name", "sut_name", name, f"... {run.subject.requirements.tree.network_sut_name} ...")


_CHECKS = (
    _validity,
    _result,
    _sample_count,
    _seeds,
    _early_stopping,
    _target_latency,
    _counts,
    _duration,
    _tokens,
    _inferred,
    _settings,
    _network,
)


@dataclass(frozen=True)
class Measured:
    """A result as the tables have it: ms, or samples or tokens a second."""

    value: float | None
    inferred: bool = False


def result_key(subject: Subject, scenario: str) -> str:
    """Of the detail log."""
    return subject.needs.rules.result_keys[Scenario[scenario]]


def measure(run: Run) -> Measured:
    """The figure of a run; of another scenario's run the one that the rules infer."""
    log, asked = run.log, run.subject.place.scenario
    if run.scenario not in Scenario.__members__:
        return Measured(None)
    value = log.number(result_key(run.subject, run.scenario))
    if value is not None and run.scenario in STREAMS:
        value /= 1e6
    if asked == run.scenario or run.scenario not in INFERRED_FROM.get(asked, ()):
        return Measured(value)
    if asked == "MultiStream":
        p99 = log.number("early_stopping_latency_ms")
        return Measured(None if p99 is None else p99 * INFERRED_SAMPLES / 1e6, True)
    if run.scenario == "SingleStream":
        return Measured(log.number("result_qps_without_loadgen_overhead"), True)
    size, mean = log.number("effective_samples_per_query"), log.number("result_mean_query_latency_ns")
    return Measured(size * 1000 / (mean / 1e6) if size and mean else None, True)
