"""Runs one test: load, issue, wait, unload, judge, write. The one entry point of the native API."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from loadgen.clock import Clock, RealClock
from loadgen.contracts import InputError, SampleLibrary, SystemUnderTest
from loadgen.execute import begin, execute, prepare, quiet_gc
from loadgen.find_peak import find_peak
from loadgen.logs import LogSettings, write
from loadgen.notes import DetailLog
from loadgen.outcome import conclude
from loadgen.progress import Progress
from loadgen.results import Result
from loadgen.settings import TEST05_WARNING, Mode, TestSettings, with_test05_seeds
from loadgen.state import IssueThreads, Job, RunState


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
    cannot run and InputError for a folder that cannot be written, both before anything is loaded. An
    InputError of the library's load, or of the system's start, is raised on: nothing is judged or written then.
    A disk that is full at the end is an InputError that names the file; `result.json` is written first.
    """
    clock = clock or RealClock()
    if settings.test05:
        settings, warnings = with_test05_seeds(settings), [*warnings, TEST05_WARNING]
    detail = DetailLog(clock.now_ns, clock.now_ns())
    outdir = log.outdir if log else None
    state = prepare(Job(sut, library, clock, detail, outdir, progress, watchdog_s, issue_threads), settings)
    if outdir is not None:
        _check_writable(outdir)
    begin(state, warnings, config_errors)
    try:
        with quiet_gc():
            if settings.mode is Mode.FindPeakPerformance:
                state = find_peak(state)
            else:
                execute(state)
        return _finish(state, log)
    finally:
        state.recorder.close()


def _finish(state: RunState, log: LogSettings | None) -> Result:
    """Judge and write. Ctrl-C meanwhile starts this over, once, so that no log is left half written."""
    entries = state.job.detail.entries
    begun = len(entries)
    try:
        return _conclude_and_write(state, log)
    except KeyboardInterrupt:
        del entries[begun:]
        return replace(_conclude_and_write(state, log), interrupted=True)


def _conclude_and_write(state: RunState, log: LogSettings | None) -> Result:
    result, verdict = conclude(state)
    if log is not None:
        write(state, result, verdict, log)
    return result


def _check_writable(outdir: Path) -> None:
    """Find out before hours of measuring. Raises InputError that names the folder."""
    probe = outdir / f".writable-{os.getpid()}"
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to the output folder {outdir} ({error.strerror or error}): choose another or change its mode"
        ) from error
