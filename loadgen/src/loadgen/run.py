"""Runs one test: load, issue, wait, unload, judge, write. The one entry point of the native API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from loadgen.clock import Clock, RealClock
from loadgen.contracts import InputError, SampleLibrary, SystemUnderTest
from loadgen.execute import begin, execute, prepare, quiet_gc
from loadgen.find_peak import find_peak
from loadgen.logs import LogSettings, Writer
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
    sample_bytes: int = 0,
) -> Result:
    """Run one test and judge it.

    log: where the official log files go; None writes none. progress: called about four times a
    second on a thread of its own. watchdog_s: fail the run when no answer comes for so long while
    samples are out; None waits for ever, as the official LoadGen does. warnings, config_errors: go into
    the log; an error makes the result INVALID.
    issue_threads: who issues Server queries; by default this thread, or `server_num_issue_query_threads`
    threads made for the run. sample_bytes: memory that the system takes for each sample of a query, to be counted
    before an Offline test is begun.

    Whatever goes wrong once the test has begun (a system that raises, a sample answered twice, Ctrl-C)
    ends in an INVALID result that keeps what was measured. SystemExit, as of a signal's handler, does so too, and is
    raised when the logs are written. Raises SettingsError for settings that
    cannot run and InputError for a folder that cannot be written, both before anything is loaded. An
    InputError of the library's load, or of the system's start, is raised on: nothing is judged or written then.
    A disk that fills up is an InputError that names the file; `result.json` says INVALID then.
    """
    clock = clock or RealClock()
    if settings.test05:
        settings, warnings = with_test05_seeds(settings), [*warnings, TEST05_WARNING]
    detail = DetailLog(clock.now_ns, clock.now_ns())
    outdir = log.outdir if log else None
    state = prepare(
        Job(sut, library, clock, detail, outdir, progress, watchdog_s, issue_threads, sample_bytes), settings
    )
    writer = _opened(log, state) if log else None
    begin(state, warnings, config_errors)
    try:
        if writer is not None:
            writer.begin()
            detail.flush = writer.detail_so_far
        with quiet_gc(settings.mode is not Mode.AccuracyOnly):
            state = _executed(state, writer)
    except BaseException:  # nothing was run
        if writer is not None:
            writer.discard()
        raise
    result = _finished(state, writer)
    if result.raised is not None and not isinstance(result.raised, (Exception, KeyboardInterrupt)):
        raise result.raised  # SystemExit: it was only put off
    return result


def _executed(state: RunState, writer: Writer | None) -> RunState:
    """The test that counts, done."""
    seeks = state.settings.mode is Mode.FindPeakPerformance
    if writer is not None and not seeks:
        writer.follow(state)
    if not seeks:
        execute(state)
        return state
    best = find_peak(state)
    if writer is not None:
        writer.follow(best)
    return best


def _finished(state: RunState, writer: Writer | None) -> Result:
    """Judge and write. Ctrl-C meanwhile starts this over, once, so that no log is left half written."""
    entries = state.job.detail.entries
    begun = len(entries)
    try:
        try:
            return _conclude_and_write(state, writer)
        except KeyboardInterrupt:
            del entries[begun:]
            if writer is not None:
                writer.rewind(begun)
            return replace(_conclude_and_write(state, writer), interrupted=True)
    finally:
        if writer is not None:
            writer.close()


def _conclude_and_write(state: RunState, writer: Writer | None) -> Result:
    if writer is not None:
        writer.finish()
    result, verdict = conclude(state)
    if writer is not None:
        writer.conclude(result, verdict)
    return result


def _opened(log: LogSettings, state: RunState) -> Writer:
    """The files of the run, before hours of measuring. Raises InputError that names folder or file."""
    try:
        log.outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = error.strerror or error
        raise InputError(
            f"cannot write to the output folder {log.outdir} ({said}): choose another or change its mode"
        ) from error
    return Writer(log, state)
