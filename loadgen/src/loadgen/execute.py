"""The middle of a run: plans the series, issues them to the system, turns what goes wrong into errors."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from functools import partial

import numpy as np
import numpy.typing as npt

from loadgen import memory
from loadgen.contracts import InputError, WarmsUp
from loadgen.generation import LogSampler, loadable_sets, plan
from loadgen.issuer import issue
from loadgen.logs import effective_entries, header_entries, requested_entries
from loadgen.notes import Errors
from loadgen.progress import Reporter
from loadgen.recorder import Recorder
from loadgen.settings import EffectiveSettings, Mode, Revision, Scenario, SettingsError, TestSettings, effective
from loadgen.spool import Spool
from loadgen.state import Job, Part, RunState, attempt, progress_of, refuse_early

_MODES = {  # what a test is made of, where that is not its own mode
    Mode.SubmissionRun: (Mode.AccuracyOnly, Mode.PerformanceOnly),
    Mode.FindPeakPerformance: (Mode.PerformanceOnly,),
}


def prepare(job: Job, requested: TestSettings) -> RunState:
    """Draw every series of the test, and make the columns for its answers. Raises SettingsError if it cannot run."""
    if requested.mode is Mode.FindPeakPerformance and requested.scenario is not Scenario.Server:
        raise SettingsError("Finding peak performance is only supported in Server scenarios.")
    settings = effective(requested, job.library.total_count, job.library.performance_count)
    modes = _MODES.get(settings.mode, (settings.mode,))
    if Mode.PerformanceOnly in modes:
        memory.check_fits(settings, job.library.total_count, job.sample_bytes)
    parts = list(_parts(settings, modes, job.library.total_count))
    keep = _kept(settings, parts)
    recorder = Recorder(
        sum(len(part.series.indices) for part in parts),
        job.clock,
        Errors(),
        keep=keep,
        tokens=requested.use_token_latencies,
        first_tokens=requested.use_token_latencies and settings.scenario is not Scenario.Offline,
        spool=Spool() if keep is not None and job.outdir is not None else None,
    )
    return RunState(job, settings, parts, recorder)


def _parts(settings: EffectiveSettings, modes: Sequence[Mode], total_count: int) -> Iterator[Part]:
    first_id = 0
    for mode in modes:
        sets = loadable_sets(settings, mode, total_count)
        for loaded in sets if mode is Mode.AccuracyOnly else sets[:1]:
            series = plan(settings, mode, loaded)
            yield Part(mode, loaded, series, first_id)
            first_id += len(series.indices)


def _kept(settings: EffectiveSettings, parts: Sequence[Part]) -> npt.NDArray[np.bool_] | None:
    """Of each sample, is its answer logged? None: no answer is."""
    sampler = LogSampler(settings)
    if sampler.probability <= 0 and all(part.timed for part in parts):
        return None
    keep: list[npt.NDArray[np.bool_]] = []
    for part in parts:
        count = len(part.series.indices)
        if not part.timed:
            sampler.skip(count)
            keep.append(np.ones(count, bool))
        else:
            keep.append(sampler.select(count) if sampler.probability > 0 else np.zeros(count, bool))
    return np.concatenate(keep)


@contextlib.contextmanager
def quiet_gc(timed: bool = True) -> Iterator[None]:
    """Make the garbage collector rarer, and in a timed test keep it from walking what lives as long as the run."""
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    freezes = timed and not frozen  # to unfreeze would undo what the user has done
    if timed:
        gc.collect()
    if freezes:
        gc.freeze()
    gc.set_threshold(500_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if freezes:
            gc.unfreeze()


def begin(state: RunState, warnings: Sequence[str], config_errors: Sequence[str] = ()) -> None:
    """The head of the detail log."""
    detail, now = state.job.detail, state.job.clock.now_ns
    asked = now()
    state.name = state.job.sut.name
    for key, value in header_entries(state.name, now() - asked, state.job.library, state.settings):
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


def execute(state: RunState) -> None:
    """Issue every part. Failures become errors of the run; Ctrl-C and exits end it. Raises InputError as `run`."""
    mode: Mode | None = None
    try:
        with attempt(state, "start()", passing=InputError), _started(state):
            for part in state.parts:
                if part.mode is not mode and state.settings.mode is not Mode.FindPeakPerformance:
                    state.job.detail.add("generic_message", _STARTING[part.mode])
                mode = part.mode
                if state.recorder.failed or state.errors.count > state.errors_at_start:
                    break
                _issue_part(state, part)
    except InputError:
        raise
    except (
        BaseException
    ) as error:  # KeyboardInterrupt, and SystemExit of a signal's handler: the logs are written first
        _interrupted(state, error)


def _interrupted(state: RunState, error: BaseException) -> None:
    state.raised = state.raised or error
    if not state.interrupted:
        state.interrupted = True
        how = str(error) or "Ctrl-C" if isinstance(error, KeyboardInterrupt) else repr(error)  # a signal has a name
        state.errors.add(f"Interrupted by {how}: the test did not finish")


@contextlib.contextmanager
def _started(state: RunState) -> Iterator[None]:
    state.job.sut.start(state.recorder)
    try:
        yield
    finally:
        with attempt(state, f"{state.name}.stop()"):
            state.job.sut.stop()


def _issue_part(state: RunState, part: Part) -> None:
    indices = list(part.loaded.indices)
    with attempt(state, f"{state.job.library.name}.load()", passing=InputError):
        state.job.library.load(indices)
    if state.recorder.failed:
        return
    try:
        _warm_up(state, indices)
        if not state.recorder.failed:
            _issue_loaded(state, part)
            if part.timed:
                with attempt(state, "the system's name"):
                    state.name = state.job.sut.name
    finally:
        with attempt(state, f"{state.job.library.name}.unload()"):
            state.job.library.unload(indices)


def _warm_up(state: RunState, indices: list[int]) -> None:
    """See `contracts.WarmsUp`."""
    if isinstance(state.job.sut, WarmsUp):
        with attempt(state, f"{state.name}.warm_up()"):
            state.job.sut.warm_up(indices)


def _issue_loaded(state: RunState, part: Part) -> None:
    say = state.job.detail.add
    say("loaded_qsl_set", list(part.loaded.indices))
    say("generated_query_count", part.series.query_count)
    say("generated_samples_per_query", _samples_per_query(state, part))
    say("generated_query_duration", part.series.duration_ns)
    state.job.detail.flush()
    began = datetime.now(timezone.utc)
    reporter = Reporter(partial(progress_of, state, part), state.job.progress)
    clocks = state.job.clock.now_ns(), state.job.clock.wall_ns()
    try:
        with reporter, attempt(state, f"{state.name}.issue()"):
            issue(state, part)
    except BaseException as error:  # noted before what it leaves unanswered
        _interrupted(state, error)
        raise
    finally:
        if part.mode is Mode.PerformanceOnly:
            _check_clocks(state, *clocks)
        ended = datetime.now(timezone.utc)
        refuse_early(state, part)
        _check_answers(state, part)
        say("power_begin", _power_time(began))
        say("power_end", _power_time(ended))
        state.job.detail.flush()


def _check_clocks(state: RunState, began_ns: int, wall_began_ns: int) -> None:
    """The measuring clock must run as the calendar's: a suspended machine or a clock that was set spoils the times.

    The official limits, 1 % and 0.1 %; differences of a few milliseconds say nothing about short runs.
    """
    passed, wall = state.job.clock.now_ns() - began_ns, state.job.clock.wall_ns() - wall_began_ns
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
        state.job.detail.add("warning_generic_message", message, warning=True)


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


def _check_answers(state: RunState, part: Part) -> None:
    """Note how the series ended and what is missing from it."""
    recorder, stop = state.recorder, part.stop_id
    if part.message:
        state.job.detail.add("error_runtime" if part.is_error else "generic_message", part.message, error=part.is_error)
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
