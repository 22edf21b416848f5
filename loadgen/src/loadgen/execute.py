"""The middle of a run: plans the series, issues them to the system, turns what goes wrong into errors."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from loadgen import memory, schedule
from loadgen.clock import Clock
from loadgen.contracts import InputError, SampleLibrary, SystemUnderTest
from loadgen.detail import effective_entries, header_entries, requested_entries
from loadgen.issuer import Issue, IssueThreads, issue, own_threads
from loadgen.logs import DetailLog
from loadgen.outcome import Part, RunState
from loadgen.progress import Progress, Reporter
from loadgen.recorder import Errors, Recorder
from loadgen.samples import LogSampler, loadable_sets
from loadgen.settings import EffectiveSettings, Mode, Revision, Scenario

_PATIENCE_S = 0.5  # how often a waiting run looks whether it should stop


def prepare(
    sut: SystemUnderTest,
    library: SampleLibrary,
    settings: EffectiveSettings,
    clock: Clock,
    detail: DetailLog,
    watchdog_s: float | None,
    issue_threads: IssueThreads | None = None,
    spool_dir: Path | None = None,
) -> RunState:
    """Draw every series of the run, and make the columns for its answers."""
    modes = {
        Mode.SubmissionRun: [Mode.AccuracyOnly, Mode.PerformanceOnly],
        Mode.FindPeakPerformance: [Mode.PerformanceOnly],
    }.get(settings.mode, [settings.mode])
    if Mode.PerformanceOnly in modes:
        memory.check_fits(settings, library.total_count)
    parts: list[Part] = []
    keep: list[np.ndarray[tuple[int], np.dtype[np.bool_]]] = []
    sampler = LogSampler(settings)
    logs_any, next_id = False, 0
    for mode in modes:
        sets = loadable_sets(settings, mode, library.total_count)
        for loaded in sets if mode is Mode.AccuracyOnly else sets[:1]:
            series = schedule.plan(settings, mode, loaded)
            parts.append(Part(mode, loaded, series, next_id))
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
        spool_dir=spool_dir,
    )
    return RunState(sut, library, settings, clock, detail, errors, parts, recorder, watchdog_s, issue_threads)


@contextlib.contextmanager
def quiet_gc() -> Iterator[None]:
    """Keep the garbage collector from walking what lives as long as the run, and make it rarer."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def begin(state: RunState, warnings: Sequence[str], config_errors: Sequence[str] = ()) -> None:
    """The head of the detail log."""
    detail = state.detail
    for key, value in header_entries(state.sut.name, state.library, state.settings):
        detail.add(key, value)
    for warning in warnings:
        detail.add("warning_generic_message", warning, warning=True)
    for message in config_errors:
        detail.add("error_invalid_config", message, error=True)
        state.errors.add(message)
    for problem in state.settings.problems:
        detail.add("error_invalid_test_settings", problem, error=True)
        state.errors.add(problem)
    state.errors_at_start = state.errors.count
    for key, value in [*requested_entries(state.settings), *effective_entries(state.settings)]:
        detail.add(key, value)


_STARTING = {Mode.AccuracyOnly: "Starting accuracy mode", Mode.PerformanceOnly: "Starting performance mode"}


def execute(state: RunState, progress: Callable[[Progress], None] | None) -> None:
    """Issue every part. Failures become errors of the run; Ctrl-C ends it. Raises InputError as `run`."""
    mode: Mode | None = None
    try:
        with _attempt(state, "start()", passing=InputError), _started(state):
            for part in state.parts:
                if part.mode is not mode and state.settings.mode is not Mode.FindPeakPerformance:
                    state.detail.add("generic_message", _STARTING[part.mode])
                mode = part.mode
                if state.recorder.failed or state.errors.count > state.errors_at_start:
                    break
                _issue_part(state, part, progress)
    except KeyboardInterrupt:
        _interrupted(state)


def _interrupted(state: RunState) -> None:
    if not state.interrupted:
        state.interrupted = True
        state.errors.add("Interrupted by Ctrl-C: the test did not finish")


@contextlib.contextmanager
def _started(state: RunState) -> Iterator[None]:
    state.sut.start(state.recorder)
    try:
        yield
    finally:
        state.sut.stop()


@contextlib.contextmanager
def _attempt(state: RunState, what: str, passing: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn an exception of the system or the library into an error of the run, unless it is of kind `passing`."""
    try:
        yield
    except passing:
        raise
    except Exception as error:  # anything a vendor's code raises must end in a verdict
        frame = traceback.extract_tb(error.__traceback__)[-1]
        state.recorder.failed = True
        state.errors.add(f"{what} raised {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})")
        state.notes.append("".join(traceback.format_exception(error)))


def _issue_part(state: RunState, part: Part, progress: Callable[[Progress], None] | None) -> None:
    indices = list(part.loaded.indices)
    with _attempt(state, f"{state.library.name}.load()", passing=InputError):
        state.library.load(indices)
    if state.recorder.failed:
        return
    try:
        _warm_up(state, indices)
        if not state.recorder.failed:
            _issue_loaded(state, part, progress)
    finally:
        with _attempt(state, f"{state.library.name}.unload()"):
            state.library.unload(indices)


def _warm_up(state: RunState, indices: list[int]) -> None:
    """See `contracts.SystemUnderTest`."""
    warm_up = getattr(state.sut, "warm_up", None)
    if warm_up is not None:
        with _attempt(state, f"{state.sut.name}.warm_up()"):
            warm_up(indices)


def _issue_loaded(state: RunState, part: Part, progress: Callable[[Progress], None] | None) -> None:
    state.detail.add("loaded_qsl_set", list(part.loaded.indices))
    state.detail.add("generated_query_count", part.series.query_count)
    state.detail.add("generated_samples_per_query", _samples_per_query(state, part))
    state.detail.add("generated_query_duration", part.series.duration_ns)
    began = datetime.now(timezone.utc)
    threads = state.settings.requested.server_num_issue_query_threads
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
        threads=state.issue_threads or (own_threads(threads) if threads else None),
    )
    reporter = Reporter(work, progress)
    clocks = state.clock.now_ns(), state.clock.wall_ns()
    try:
        with reporter, _attempt(state, f"{state.sut.name}.issue()"):
            issue(work)
    except KeyboardInterrupt:  # noted before what it leaves unanswered
        _interrupted(state)
        raise
    finally:
        if part.mode is Mode.PerformanceOnly:
            _check_clocks(state, *clocks)
        ended = datetime.now(timezone.utc)
        _check_answers(state, part)
        state.detail.add("power_begin", _power_time(began))
        state.detail.add("power_end", _power_time(ended))


def _check_clocks(state: RunState, began_ns: int, wall_began_ns: int) -> None:
    """The measuring clock must run as the calendar's: a suspended machine or a clock that was set spoils the times.

    The official limits, 1 % and 0.1 %; differences of a few milliseconds say nothing about short runs.
    """
    passed, wall = state.clock.now_ns() - began_ns, state.clock.wall_ns() - wall_began_ns
    ratio = passed / wall if wall > 0 else 0.0
    if state.settings.print_timestamps:
        _print_timestamps(passed, wall, wall_began_ns, ratio)
    difference = abs(passed - wall)
    if abs(ratio - 1) > 0.01 and difference > 20_000_000:
        state.errors.add(
            f"PerfClock and system_clock differ by more than 1%! pc_sc_ratio: {ratio:.4f}. The system's clock was set, "
            "or the machine slept, during the test: run it again"
        )
    elif abs(ratio - 1) > 0.001 and difference > 5_000_000:
        message = f"PerfClock and system_clock differ by more than 0.1%! pc_sc_ratio: {ratio:.4f}"
        state.detail.add("warning_generic_message", message, warning=True)


def _print_timestamps(passed: int, wall: int, wall_began_ns: int, ratio: float) -> None:
    """What the official LoadGen prints for power meters, letter for letter."""
    print(f"Loadgen :: Perf mode start. system_clock Timestamp = {wall_began_ns // 10**9}")
    print(f"Loadgen :: Perf mode stop. systme_clock Timestamp = {(wall_began_ns + wall) // 10**9}")
    print(f"Loadgen :: PerfClock Perf duration = {passed // 10**6}ms")
    print(f"Loadgen :: system_clock Perf duration = {wall // 10**6}ms")
    print(f"Loadgen :: PerfClock/system_clock ratio = {ratio:.4f}", flush=True)


def _samples_per_query(state: RunState, part: Part) -> int:
    """Release 4.0 reports the settings' value even where a set's query has another length."""
    if state.settings.requested.revision is Revision.V4_0:
        return state.settings.samples_per_query
    return part.series.samples_per_query


def _watchdog(state: RunState) -> Callable[[], bool]:
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


def _check_answers(state: RunState, part: Part) -> None:
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
