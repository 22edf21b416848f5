"""Runs one test: load, issue, wait, unload, judge, write. The one entry point of the native API."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from loadgen import schedule
from loadgen.clock import Clock, RealClock
from loadgen.contracts import SampleLibrary, SystemUnderTest
from loadgen.detail import effective_entries, header_entries, requested_entries, verdict_entries
from loadgen.issuer import Issue, issue
from loadgen.logs import DetailLog, LogSettings, write_accuracy, write_detail
from loadgen.progress import Progress, Reporter
from loadgen.recorder import Errors, Recorder
from loadgen.results import Records, Result, Verdict, headline, judge
from loadgen.samples import LoadableSet, LogSampler, loadable_sets
from loadgen.settings import EffectiveSettings, Mode, Scenario, SettingsError, TestSettings, effective
from loadgen.summary import summary_text

RESULT_SCHEMA = 1  # of result.json; grows when a field changes its meaning
_PATIENCE_S = 0.5  # how often a waiting run looks whether it should stop


@dataclass
class _Part:
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
class _Run:
    """Everything one run holds. `run` drives it; nothing of it outlives the call."""

    sut: SystemUnderTest
    library: SampleLibrary
    settings: EffectiveSettings
    clock: Clock
    detail: DetailLog
    errors: Errors
    parts: list[_Part]
    recorder: Recorder
    watchdog_s: float | None
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)


def run(
    sut: SystemUnderTest,
    library: SampleLibrary,
    settings: TestSettings,
    *,
    log: LogSettings | None = None,
    progress: Callable[[Progress], None] | None = None,
    watchdog_s: float | None = None,
    clock: Clock | None = None,
) -> Result:
    """Run one test and judge it.

    log: where the official log files go; None writes none. progress: called about four times a
    second on a thread of its own. watchdog_s: fail the run when no answer comes for so long while
    samples are out; None waits for ever, as the official LoadGen does.

    Whatever goes wrong once the test has begun (a system that raises, a sample answered twice, Ctrl-C)
    ends in an INVALID result that keeps what was measured. Raises SettingsError for settings that
    cannot run and OSError for a folder that cannot be written, both before anything is loaded.
    """
    clock = clock or RealClock()
    if settings.mode is Mode.FindPeakPerformance:
        raise SettingsError("run() runs one test; mode FindPeakPerformance needs loadgen.run.find_peak")
    derived = effective(settings, library.total_count, library.performance_count)
    if log is not None:
        _check_writable(log.outdir)
    state = _prepare(sut, library, derived, clock, watchdog_s)
    try:
        with _quiet_gc():
            _execute(state, progress)
        result = _judge(state, log)
        if log is not None:
            _write(state, result, log)
        return result[0]
    finally:
        state.recorder.close()


def _check_writable(outdir: Path) -> None:
    """Find out before hours of measuring. The error names the folder."""
    outdir.mkdir(parents=True, exist_ok=True)
    if not os.access(outdir, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write to the output folder {outdir}: choose another or change its mode")
    probe = outdir / f".writable-{os.getpid()}"
    probe.write_bytes(b"x")
    probe.unlink()


def _prepare(
    sut: SystemUnderTest,
    library: SampleLibrary,
    settings: EffectiveSettings,
    clock: Clock,
    watchdog_s: float | None,
) -> _Run:
    modes = {
        Mode.SubmissionRun: [Mode.AccuracyOnly, Mode.PerformanceOnly],
    }.get(settings.mode, [settings.mode])
    parts: list[_Part] = []
    keep: list[np.ndarray[tuple[int], np.dtype[np.bool_]]] = []
    sampler = LogSampler(settings)
    logs_any, next_id = False, 0
    for mode in modes:
        sets = loadable_sets(settings, mode, library.total_count)
        for loaded in sets if mode is Mode.AccuracyOnly else sets[:1]:
            series = schedule.plan(settings, mode, loaded)
            parts.append(_Part(mode, loaded, series, next_id))
            count = len(series.indices)
            next_id += count
            if mode is Mode.AccuracyOnly:
                logs_any = True
                sampler.skip(count)
                keep.append(np.ones(count, bool))
            elif sampler.probability > 0:
                logs_any = True
                keep.append(sampler.select(count))
            else:
                keep.append(np.zeros(count, bool) if logs_any else np.empty(0, bool))
    errors = Errors()
    requested = settings.requested
    recorder = Recorder(
        next_id,
        clock,
        errors,
        keep=np.concatenate(keep) if logs_any else None,
        tokens=requested.use_token_latencies,
        first_tokens=requested.use_token_latencies and settings.scenario is not Scenario.Offline,
    )
    detail = DetailLog(clock.now_ns, clock.now_ns())
    return _Run(sut, library, settings, clock, detail, errors, parts, recorder, watchdog_s)


@contextlib.contextmanager
def _quiet_gc() -> Iterator[None]:
    """Keep the garbage collector from walking what lives as long as the run, and make it rarer."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _execute(state: _Run, progress: Callable[[Progress], None] | None) -> None:
    """Issue every part. Failures become errors of the run; Ctrl-C ends it."""
    detail = state.detail
    for key, value in header_entries(state.sut.name, state.library):
        detail.add(key, value)
    for key, value in [*requested_entries(state.settings), *effective_entries(state.settings)]:
        detail.add(key, value)
    for problem in state.settings.problems:
        detail.add("error_invalid_test_settings", problem, error=True)
        state.errors.add(problem)
    mode: Mode | None = None
    try:
        with _attempt(state, "start()"), _started(state):
            for part in state.parts:
                if part.mode is not mode:
                    mode = part.mode
                    kind = "accuracy" if mode is Mode.AccuracyOnly else "performance"
                    detail.add("generic_message", f"Starting {kind} mode")
                if state.recorder.failed or state.errors.count > len(state.settings.problems):
                    break
                _issue_part(state, part, progress)
    except KeyboardInterrupt:
        state.interrupted = True
        state.errors.add("Interrupted by Ctrl-C: the test did not finish")


@contextlib.contextmanager
def _started(state: _Run) -> Iterator[None]:
    state.sut.start(state.recorder)
    try:
        yield
    finally:
        state.sut.stop()


@contextlib.contextmanager
def _attempt(state: _Run, what: str) -> Iterator[None]:
    """Turn an exception of the system or the library into an error of the run."""
    try:
        yield
    except Exception as error:  # anything a vendor's code raises must end in a verdict
        frame = traceback.extract_tb(error.__traceback__)[-1]
        state.recorder.failed = True
        state.errors.add(f"{what} raised {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})")
        state.notes.append("".join(traceback.format_exception(error)))


def _issue_part(state: _Run, part: _Part, progress: Callable[[Progress], None] | None) -> None:
    indices = list(part.loaded.indices)
    with _attempt(state, f"{state.library.name}.load()"):
        state.library.load(indices)
    if state.recorder.failed:
        return
    state.detail.add("loaded_qsl_set", indices)
    state.detail.add("generated_query_count", part.series.query_count)
    state.detail.add("generated_samples_per_query", _samples_per_query(state, part))
    state.detail.add("generated_query_duration", part.series.duration_ns)
    began = datetime.now(timezone.utc)
    part.work = work = Issue(
        settings=state.settings,
        series=part.series,
        first_id=part.first_id,
        recorder=state.recorder,
        sut=state.sut,
        clock=state.clock,
        timed=part.mode is not Mode.AccuracyOnly,
        stop_requested=_watchdog(state),
        patience_s=_PATIENCE_S,
    )
    reporter = Reporter(work, progress)
    try:
        with reporter, _attempt(state, f"{state.sut.name}.issue()"):
            issue(work)
    finally:
        state.detail.add("power_begin", _power_time(began))
        state.detail.add("power_end", _power_time(datetime.now(timezone.utc)))
        _check_answers(state, part)
        with _attempt(state, f"{state.library.name}.unload()"):
            state.library.unload(indices)


def _samples_per_query(state: _Run, part: _Part) -> int:
    """Release 4.0 reports the settings' value even where a set's query has another length."""
    from loadgen.settings import Revision

    if state.settings.requested.revision is Revision.V4_0:
        return state.settings.samples_per_query
    return part.series.samples_per_query


def _watchdog(state: _Run) -> Callable[[], bool]:
    """Called while the run waits: True if it has waited too long for the next answer."""
    seen = [-1, state.clock.now_ns()]

    def stop() -> bool:
        answered = int(np.count_nonzero(state.recorder.done_view))
        now = state.clock.now_ns()
        if answered != seen[0] or state.watchdog_s is None:
            seen[:] = [answered, now]
            return False
        if now - seen[1] < state.watchdog_s * 1e9:
            return False
        missing = np.flatnonzero(state.recorder.done_view == 0)[:5].tolist()
        state.recorder.fail(f"no answer for {state.watchdog_s:g} s; still out are ids {missing} and maybe more")
        return True

    return stop


def _check_answers(state: _Run, part: _Part) -> None:
    """Note how the series ended and what is missing from it."""
    work, recorder = part.work, state.recorder
    assert work is not None
    if work.message:
        state.detail.add("error_runtime" if work.is_error else "generic_message", work.message, error=work.is_error)
    stop = part.first_id + work.queries * part.series.samples_per_query
    missing = int(np.count_nonzero(recorder.done_view[part.first_id : stop] == 0))
    if missing:
        first = recorder.first_missing(part.first_id, stop)
        state.errors.add(
            f"Encountered incomplete samples at the end of a series of queries. count: {missing}, first id: {first}"
        )
    early = np.flatnonzero(recorder.done_view[stop : part.first_id + len(part.series.indices)])
    for position in early[:5]:
        state.errors.add(f"Received completion for a sample that was never issued: id {position + stop}")


def _power_time(moment: datetime) -> str:
    return moment.strftime("%m-%d-%Y %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


def _records(state: _Run, part: _Part) -> Records:
    """Columns of the queries that were answered in full, in issue order."""
    work, size = part.work, part.series.samples_per_query
    queries = part.issued_queries
    low, high = part.first_id, part.first_id + queries * size
    done = state.recorder.done_view[low:high].reshape(queries, size)
    whole = (done != 0).all(axis=1)
    start = work.start_ns if work else 0
    scheduled = np.array(work.scheduled if work else [], np.int64)[:queries][whole] - start
    issued = np.array(work.issued if work else [], np.int64)[whole] - start
    samples = np.repeat(whole, size)
    tokens = len(state.recorder.tokens) > 0
    first = state.recorder.first[low:high][samples] - start if tokens else None
    return Records(
        scheduled_ns=scheduled,
        issued_ns=issued,
        completed_ns=done[whole].ravel() - start,
        samples_per_query=size,
        first_token_ns=first,
        n_tokens=state.recorder.tokens[low:high][samples] if tokens else None,
    )


def _judge(state: _Run, log: LogSettings | None) -> tuple[Result, Verdict | None]:
    for message in state.errors.messages[len(state.settings.problems) :]:
        state.detail.add("error_runtime", message, error=True)
    part = state.parts[-1]
    records = _records(state, part)
    verdict = None
    if part.mode is Mode.PerformanceOnly:
        verdict = judge(state.settings, records)
        for key, value in verdict_entries(state.settings, verdict):
            state.detail.add(key, value)
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
    )
    return result, verdict


def _reasons(state: _Run, verdict: Verdict | None) -> list[str]:
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


def _write(state: _Run, judged: tuple[Result, Verdict | None], log: LogSettings) -> None:
    """Write the log files, each complete or, if the disk is full, an error that names it."""
    result, verdict = judged
    detail = state.detail
    indices = np.concatenate([p.series.indices for p in state.parts])
    for name in ("summary.txt", "detail.txt", "accuracy.json", "trace.json"):
        with log.path(name).open("w", encoding="utf-8") as file:
            if name == "summary.txt":
                text = summary_text(state.settings, verdict, state.sut.name, detail.warnings, detail.errors)
                file.write(text)
                if log.copy_summary_to_stdout:
                    print(text, end="")
            elif name == "detail.txt":
                write_detail(file, detail.entries)
            elif name == "accuracy.json":
                write_accuracy(file, state.recorder.entries(), indices)
    (log.outdir / "result.json").write_text(json.dumps(result_record(result), indent=1) + "\n")


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
