"""Runs one test: load, issue, wait, unload, judge, write. The one entry point of the native API."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loadgen.clock import Clock, RealClock
from loadgen.contracts import SampleLibrary, SystemUnderTest
from loadgen.execute import begin, execute, prepare, quiet_gc
from loadgen.issuer import IssueThreads
from loadgen.logs import DetailLog, LogSettings
from loadgen.outcome import RunState, conclude, verdict_of
from loadgen.progress import Progress
from loadgen.results import Result
from loadgen.settings import TEST05_WARNING, Mode, Scenario, SettingsError, TestSettings, effective, with_test05_seeds
from loadgen.write import write


def run(
    sut: SystemUnderTest,
    library: SampleLibrary,
    settings: TestSettings,
    *,
    log: LogSettings | None = None,
    progress: Callable[[Progress], None] | None = None,
    watchdog_s: float | None = None,
    clock: Clock | None = None,
    warnings: Sequence[str] = (),
    config_errors: Sequence[str] = (),
    issue_threads: IssueThreads | None = None,
) -> Result:
    """Run one test and judge it.

    log: where the official log files go; None writes none. progress: called about four times a
    second on a thread of its own. watchdog_s: fail the run when no answer comes for so long while
    samples are out; None waits for ever, as the official LoadGen does. warnings, config_errors: go into
    the log; an error makes the result INVALID.
    issue_threads: who issues Server queries; by default this thread, or `server_num_issue_query_threads`
    threads made for the run.

    Whatever goes wrong once the test has begun (a system that raises, a sample answered twice, Ctrl-C)
    ends in an INVALID result that keeps what was measured. Raises SettingsError for settings that
    cannot run and OSError for a folder that cannot be written, both before anything is loaded. An
    InputError of the library's load, or of the system's start, is raised on: nothing is judged or written then.
    """
    clock = clock or RealClock()
    if settings.test05:
        settings, warnings = with_test05_seeds(settings), [*warnings, TEST05_WARNING]
    detail = DetailLog(clock.now_ns, clock.now_ns())
    folder = log.outdir if log else None
    bench = _Bench(sut, library, settings, clock, detail, watchdog_s, progress, issue_threads, folder)
    state = bench.prepare(settings)
    if log is not None:
        _check_writable(log.outdir)
    begin(state, warnings, config_errors)
    try:
        with quiet_gc():
            if settings.mode is Mode.FindPeakPerformance:
                state = _find_peak(bench, state)
            else:
                execute(state, progress)
        return _finish(state, log)
    finally:
        state.recorder.close()


def _finish(state: RunState, log: LogSettings | None) -> Result:
    """Judge and write. Ctrl-C meanwhile starts this over, once, so that no log is left half written."""
    begun = len(state.detail.entries)
    try:
        return _conclude_and_write(state, log)
    except KeyboardInterrupt:
        del state.detail.entries[begun:]
        return replace(_conclude_and_write(state, log), interrupted=True)


def _conclude_and_write(state: RunState, log: LogSettings | None) -> Result:
    result, verdict = conclude(state, log)
    if log is not None:
        write(state, result, verdict, log)
    return result


def _check_writable(outdir: Path) -> None:
    """Find out before hours of measuring. The error names the folder."""
    outdir.mkdir(parents=True, exist_ok=True)
    if not os.access(outdir, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write to the output folder {outdir}: choose another or change its mode")
    probe = outdir / f".writable-{os.getpid()}"
    probe.write_bytes(b"x")
    probe.unlink()


@dataclass(frozen=True)
class _Bench:
    """What the tests of one call share."""

    sut: SystemUnderTest
    library: SampleLibrary
    settings: TestSettings
    clock: Clock
    detail: DetailLog
    watchdog_s: float | None
    progress: Callable[[Progress], None] | None
    issue_threads: IssueThreads | None
    spool_dir: Path | None

    def prepare(self, settings: TestSettings) -> RunState:
        if settings.mode is Mode.FindPeakPerformance and settings.scenario is not Scenario.Server:
            raise SettingsError("Finding peak performance is only supported in Server scenarios.")
        derived = effective(settings, self.library.total_count, self.library.performance_count)
        return prepare(
            self.sut,
            self.library,
            derived,
            self.clock,
            self.detail,
            self.watchdog_s,
            self.issue_threads,
            self.spool_dir,
        )

    def test(self, qps: float) -> RunState:
        """Run the test at this rate."""
        state = self.prepare(replace(self.settings, server_target_qps=qps))
        execute(state, self.progress)
        return state


def _find_peak(bench: _Bench, first: RunState) -> RunState:
    """The highest rate whose latency constraint holds: double until it fails, then bisect.

    Returns the run at that rate, or the first that broke off. Messages and steps are the official ones.
    """
    settings, say = bench.settings, bench.detail.add
    low, best = settings.server_target_qps, first
    say("generic_message", "Starting FindPeakPerformance mode")
    say("generic_message", f"FindPeakPerformance: Check validity of the base settings field: {low:f}")
    execute(first, bench.progress)
    if _broken(first) or not _holds(first):
        verdict = verdict_of(first)
        advice = [a for a in verdict.recommendations if "target QPS to improve" in a] if verdict else []
        first.errors.add(
            "FindPeakPerformance: Initial lower bound does not satisfy performance constraints, "
            f"msg: {' * '.join(advice)}"
        )
        return first
    high = low * (1 + settings.server_find_peak_qps_boundary_step_size)
    while True:
        say("generic_message", f"FindBoundaries: Checking fields [{low:f}, {high:f})")
        state = bench.test(high)
        if _broken(state) or not _holds(state):
            break
        best = _better(best, state)
        low, high = high, high * (1 + settings.server_find_peak_qps_boundary_step_size)
    say("generic_message", f"FindPeakPerformance: Found boundaries: [{low:f}, {high:f})")
    scale = 10.0**settings.server_find_peak_qps_decimals_of_precision
    while not _broken(state) and math.floor(low * scale) + 1 < math.floor(high * scale):
        middle = low + (high - low) / 2
        say(
            "generic_message",
            f"FindPeakPerformanceBinarySearch: Testing the mid value of bounds [{low:f}, {high:f}): {middle:f}",
        )
        state = bench.test(middle)
        if _holds(state) and not _broken(state):
            best, low = _better(best, state), middle
        else:
            high = middle
    if _broken(state):
        return state
    say("generic_message", f"FindPeakPerformance: Found peak performance field: {low:f}")
    return best


def _better(worse: RunState, state: RunState) -> RunState:
    worse.recorder.close()
    return state


def _broken(state: RunState) -> bool:
    """Did something other than the latency go wrong?"""
    return state.interrupted or state.errors.count > state.errors_at_start


def _holds(state: RunState) -> bool:
    verdict = verdict_of(state)
    return verdict is not None and verdict.perf_constraints_met
