"""What a run holds while it goes on: what it was given, its parts with all that was issued, its columns."""

from __future__ import annotations

import contextlib
import traceback
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypedDict

import numpy as np

from loadgen.clock import Clock
from loadgen.contracts import I64, SampleLibrary, SystemUnderTest
from loadgen.generation import LoadableSet, Series
from loadgen.notes import DetailLog, Errors
from loadgen.progress import Progress
from loadgen.recorder import Recorder
from loadgen.settings import EffectiveSettings, Mode, Scenario

IssueThreads: TypeAlias = Callable[[Callable[[], None]], None]
"""Calls a function once on each of the threads that issue, and returns when all of these calls have."""

_SILENCE_S = 5.0  # without an answer, before it is said
_RECENT = 4096  # answers that the percentiles so far are taken from, spread over all of them
_LOOKED_AT = 65_536  # samples among which they are sought


class _Silence(TypedDict, total=False):
    silent_s: float
    waiting: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """What one call of `run` was given (see there). Its tests share it: several, while the highest rate is sought."""

    sut: SystemUnderTest
    library: SampleLibrary
    clock: Clock
    detail: DetailLog
    outdir: Path | None = None
    """The folder of the logs, where answers wait for them."""
    progress: Callable[[Progress], None] | None = None
    watchdog_s: float | None = None
    issue_threads: IssueThreads | None = None
    sample_bytes: int = 0
    """That the system takes for each sample of a query."""


@dataclass
class Part:
    """One loaded set and its queries. What was issued grows, so that an interruption leaves it readable."""

    mode: Mode
    loaded: LoadableSet
    series: Series
    first_id: int
    """The id of the series' first sample."""
    start_ns: int = 0
    """0: nothing of it has been issued yet."""
    scheduled: array[int] = field(default_factory=lambda: array("q"))
    """When each query was due, ns on the run's clock."""
    issued: array[int] = field(default_factory=lambda: array("q"))
    """When each query was sent."""
    all_answered: int = 0
    """Every query before this one is known to be answered."""
    seen_answers: int = -1
    """How many answers of the run there were when the watchdog last looked,"""
    seen_ns: int = 0
    """and when it saw the last of them."""
    checked: int = 0
    """Of the queries before this one it is known that no answer came before they were issued."""
    message: str = ""
    """How it ended, in the official words; empty if every generated query was issued."""
    is_error: bool = False

    @property
    def timed(self) -> bool:
        """False in accuracy mode: everything is issued, no limit ends it."""
        return self.mode is not Mode.AccuracyOnly

    @property
    def queries(self) -> int:
        """How many have been issued."""
        return len(self.issued)

    @property
    def stop_id(self) -> int:
        """The first id after those that have been issued."""
        return self.first_id + self.queries * self.series.samples_per_query

    def end(self, message: str, *, error: bool = False) -> None:
        self.message, self.is_error = message, error


@dataclass
class RunState:
    """One test of a job."""

    job: Job
    settings: EffectiveSettings
    parts: list[Part]
    recorder: Recorder
    errors_at_start: int = 0
    """Errors of the settings and config files: in the log, and no reason to stop."""
    name: str = "the system"
    """Of the system under test: asked for twice, as officially, because that may go over a network."""
    interrupted: bool = False
    raised: BaseException | None = None
    """What the system, the library or a signal's handler raised first."""

    @property
    def errors(self) -> Errors:
        return self.recorder.errors


@contextlib.contextmanager
def attempt(state: RunState, what: str, passing: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn an exception of the system or the library into an error of the run, unless it is of kind `passing`."""
    try:
        yield
    except passing:
        raise
    except Exception as error:  # anything a vendor's code raises must end in a verdict
        state.raised = state.raised or error
        frame = traceback.extract_tb(error.__traceback__)[-1]
        state.recorder.fail(
            f"{what} raised {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})",
            "".join(traceback.format_exception(error)),
        )


_FEW_NAMED = 5  # of many wrong answers


def refuse_early(state: RunState, part: Part) -> None:
    """Fail the run, and take the answers back, if any came before their query was issued, or before their first token.

    A system can only guess such an id. Looked at now and then, of all queries since: nothing is spent on each.
    """
    recorder, size = state.recorder, part.series.samples_per_query
    issued = np.array(part.issued[part.checked :], np.int64)  # a copy: other threads may issue
    low = part.first_id + part.checked * size
    part.checked += len(issued)
    span = slice(low, low + len(issued) * size)
    issued = issued if size == 1 else np.repeat(issued, size)
    columns = {"An answer": recorder.done_view[span]}
    if len(recorder.first):
        columns["A first token"] = recorder.first[span]
    seen = {what: np.array(column) for what, column in columns.items()}  # others answer meanwhile
    for what, column in columns.items():
        early = np.flatnonzero((seen[what] < issued) & (seen[what] != 0))
        for k in early[:_FEW_NAMED].tolist():
            before = issued[k] - seen[what][k]
            recorder.fail(f"{what} came {before} ns before its query was issued: id {low + k}")
        column[early] = 0
    if recorder.needs_first:
        done, first = seen["An answer"], seen["A first token"]
        for k in np.flatnonzero((done < first) & (done != 0))[:_FEW_NAMED].tolist():
            recorder.fail(f"An answer came {first[k] - done[k]} ns before its first token: id {low + k}")


def progress_of(state: RunState, part: Part) -> Progress | None:
    """How far the test is with this part, None before it begins. Safe while other threads issue and answer.

    The percentiles are the part's. An accuracy test has a part for each set that is loaded, hundreds of them."""
    if not part.start_ns:
        return None
    size, queries = part.series.samples_per_query, part.queries
    done = state.recorder.done_view[part.first_id : part.first_id + queries * size]  # others write meanwhile
    answered = int(np.count_nonzero(done))
    before, samples, began_ns, later_s = _whole(state, part)
    now = state.job.clock.now_ns()
    elapsed = (now - began_ns) / 1e9
    p50, p99 = _percentiles(part, done)
    counted = state.settings.scenario in (Scenario.Server, Scenario.Offline) or not part.timed
    total, completed = samples if counted else None, before + answered
    rate = completed / elapsed if elapsed > 0 else 0.0
    eta = _eta(state.settings, part, total, completed, rate, (now - part.start_ns) / 1e9)
    return Progress(
        issued=before + queries * size,
        completed=completed,
        total=total,
        elapsed_s=elapsed,
        rate=rate,
        p50_ns=p50,
        p99_ns=p99,
        eta_s=None if eta is None else eta + later_s,
        **_silence(state, part, done, answered),
    )


def _percentiles(part: Part, done: I64) -> tuple[int | None, int | None]:
    """p50 and p99 in ns, of some answers; None if there is none. No copy is made of the whole column."""
    places = np.arange(0, len(done), max(1, len(done) // _LOOKED_AT))
    times = done[places]
    places, times = places[times != 0], times[times != 0]
    step = max(1, len(places) // _RECENT)
    places, times = places[::step], times[::step]
    if not len(places):
        return None, None
    scheduled, size = part.scheduled, part.series.samples_per_query
    due = np.array([scheduled[q] for q in (places // size).tolist()], np.int64)
    p50, p99 = np.percentile(times - due, [50, 99])
    return int(p50), int(p99)


def _whole(state: RunState, part: Part) -> tuple[int, int, int, float]:
    """The samples of the parts before this one, those of all parts, when the first began, and for Server how long the
    queries of those after it take by their schedule."""
    sets = [one for one in state.parts if one.mode is part.mode]
    later = [one.series.due_ns for one in sets if one.first_id > part.first_id and one.series.query_count]
    scheduled = state.settings.scenario is Scenario.Server
    later_s = sum(int(due[-1]) for due in later) / 1e9 if scheduled else 0.0
    return part.first_id - sets[0].first_id, sum(len(one.series.indices) for one in sets), sets[0].start_ns, later_s


def _silence(state: RunState, part: Part, done: I64, answered: int) -> _Silence:
    """What to say of a system that answers nothing while samples are out; nothing, if it answers."""
    if answered == len(done):
        return {}
    last = max(int(done.max()), part.start_ns)
    silent = (state.job.clock.now_ns() - last) / 1e9
    if silent < _SILENCE_S:
        return {}
    missing = np.flatnonzero(done == 0)[:3] + part.first_id
    return {"silent_s": silent, "waiting": tuple(missing.tolist())} if len(missing) else {}


def _eta(
    settings: EffectiveSettings, part: Part, total: int | None, answered: int, rate: float, elapsed: float
) -> float | None:
    if settings.scenario is Scenario.Server and part.series.query_count:
        return max(0.0, int(part.series.due_ns[-1]) / 1e9 - elapsed)
    if total is not None:
        return (total - answered) / rate if rate else None
    by_count = (settings.min_query_count * part.series.samples_per_query - answered) / rate if rate else None
    by_time = settings.target_duration_ms / 1e3 - elapsed
    return None if by_count is None else max(0.0, by_count, by_time)
