"""The end of a run: from its columns to a `Result` and the log files."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from loadgen import schedule
from loadgen.clock import Clock
from loadgen.contracts import SampleLibrary, SystemUnderTest
from loadgen.detail import verdict_entries
from loadgen.issuer import Issue, IssueThreads
from loadgen.logs import DetailLog, LogSettings
from loadgen.recorder import Errors, Recorder
from loadgen.results import Records, Result, Verdict, headline, judge
from loadgen.samples import LoadableSet
from loadgen.settings import EffectiveSettings, Mode, Revision

RESULT_SCHEMA = 1  # of result.json; grows when a field changes its meaning


@dataclass
class Part:
    """One loaded set and its queries."""

    mode: Mode
    loaded: LoadableSet
    series: schedule.Series
    first_id: int
    work: Issue | None = None

    @property
    def issued_queries(self) -> int:
        return self.work.queries if self.work else 0


@dataclass
class RunState:
    """Everything one run holds. `run` drives it; nothing of it outlives the call."""

    sut: SystemUnderTest
    library: SampleLibrary
    settings: EffectiveSettings
    clock: Clock
    detail: DetailLog
    errors: Errors
    parts: list[Part]
    recorder: Recorder
    watchdog_s: float | None
    issue_threads: IssueThreads | None = None
    errors_at_start: int = 0
    """Errors of the settings and config files: in the log, and no reason to stop."""
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)


def columns_of(state: RunState, part: Part) -> Records:
    """Columns of the queries that were answered in full, in issue order."""
    work, size, tokens = part.work, part.series.samples_per_query, len(state.recorder.tokens) > 0
    low, high = part.first_id, part.first_id + part.issued_queries * size
    done = state.recorder.done_view[low:high]
    queries: slice | npt.NDArray[np.bool_] = slice(None)
    samples: slice | npt.NDArray[np.bool_] = slice(None)
    if state.recorder.first_missing(low, high) < high:
        whole: npt.NDArray[np.bool_] = (done.reshape(-1, size) != 0).all(axis=1)
        queries, samples = whole, np.repeat(whole, size)
    start = work.start_ns if work else 0
    scheduled = issued = done  # empty, unless a query went out
    if work is not None and work.queries:
        scheduled = issued = np.frombuffer(work.issued, np.int64)[queries] - start
        if work.scheduled is not work.issued:
            scheduled = np.frombuffer(work.scheduled, np.int64)[: work.queries][queries] - start
    return Records(
        scheduled_ns=scheduled,
        issued_ns=issued,
        completed_ns=done[samples] - start,
        samples_per_query=size,
        first_token_ns=state.recorder.first[low:high][samples] - start if tokens else None,
        n_tokens=state.recorder.tokens[low:high][samples] if tokens else None,
    )


def verdict_of(state: RunState) -> Verdict | None:
    """The official judgement of the last part; None for an accuracy run."""
    part = state.parts[-1]
    return judge(state.settings, columns_of(state, part)) if part.mode is Mode.PerformanceOnly else None


def conclude(state: RunState, log: LogSettings | None) -> tuple[Result, Verdict | None]:
    """Judge a run that has ended, whatever ended it."""
    for message in state.errors.messages[state.errors_at_start :]:
        state.detail.add("error_runtime", message, error=True)
    part = state.parts[-1]
    records = columns_of(state, part)
    verdict = None
    if part.mode is Mode.PerformanceOnly:
        verdict = judge(state.settings, records)
        for key, value in verdict_entries(state.settings, verdict):
            state.detail.add(key, value)
        if state.settings.requested.revision is Revision.V6_0:
            state.detail.add("num_errors", state.detail.errors)
    reasons = _reasons(state, verdict)
    latencies = records.latencies_ns
    done_ns = int(records.completed_ns.max()) if len(latencies) else 0
    result = Result(
        scenario=state.settings.scenario,
        mode=state.settings.mode,
        valid=not reasons,
        reasons=tuple(reasons),
        errors=tuple(state.errors.messages),
        warnings=tuple(e.value for e in state.detail.entries if e.is_warning),
        metrics=dict(verdict.metrics) if verdict else {"result_query_count": len(records.issued_ns)},
        headline=headline(state.settings, verdict) if verdict else None,
        query_count=sum(p.issued_queries for p in state.parts if p.mode is part.mode),
        sample_count=int(
            sum(
                np.count_nonzero(state.recorder.done_view[p.first_id : p.first_id + len(p.series.indices)])
                for p in state.parts
                if p.mode is part.mode
            )
        ),
        duration_ns=done_ns,
        interrupted=state.interrupted,
        logdir=log.outdir if log else None,
        latencies_ns=latencies,
        columns=records,
    )
    return result, verdict


def _reasons(state: RunState, verdict: Verdict | None) -> list[str]:
    """Every ground for INVALID, the run's own errors first. None is left out because another holds."""
    reasons = list(state.errors.messages)
    ended = [p.work.message for p in state.parts if p.work and p.work.is_error]
    reasons += [m for m in ended if m not in reasons]
    if state.parts[-1].work is None and not reasons:
        reasons.append("the test never reached its last set of samples")
    if verdict is None:
        return reasons
    if not len(verdict.metrics) > 1:
        reasons.append("no query was answered: nothing was measured")
    reasons += verdict.recommendations
    if not verdict.early_stopping_met:
        reasons += [f"Early stopping: {' '.join(t.split())}" for t in verdict.early_stopping.values() if t]
    return reasons


def result_record(result: Result) -> dict[str, object]:
    """`result.json`: the result without its columns. `schema` names this layout's version."""
    return {
        "schema": RESULT_SCHEMA,
        "scenario": result.scenario.name,
        "mode": result.mode.name,
        "valid": result.valid,
        "reasons": list(result.reasons),
        "errors": list(result.errors),
        "warnings": list(result.warnings),
        "interrupted": result.interrupted,
        "headline": vars(result.headline) if result.headline else None,
        "query_count": result.query_count,
        "sample_count": result.sample_count,
        "duration_ns": result.duration_ns,
        "metrics": dict(result.metrics),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
