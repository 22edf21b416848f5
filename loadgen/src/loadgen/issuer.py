"""Issues one series of queries, on time. One function a scenario; the only module that waits.

Every function returns how the issuing ended. Latency counts from the time at which a query was due
(`scheduled`), never from when it was sent, so a system that falls behind cannot hide it.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from loadgen.clock import Clock, precise_sleep
from loadgen.contracts import SystemUnderTest
from loadgen.recorder import Recorder
from loadgen.rng import I64
from loadgen.schedule import Series
from loadgen.settings import EffectiveSettings, Scenario

_CHUNK = 8192  # queries turned from columns into Python integers at a time
_NEVER = 1 << 62

RAN_OUT = (
    "Ending early: Ran out of generated queries to issue before the minimum query count and test duration "
    "were reached. Please update the relevant expected latency or target qps in the TestSettings so they "
    "are more accurate."
)
ENDED = "Ending naturally: Minimum query count and test duration met."


IssueThreads: TypeAlias = Callable[[Callable[[], None]], None]
"""Calls a function once on each of the threads that issue, and returns when all of these calls have."""


def own_threads(count: int) -> IssueThreads:
    """Threads made for one series."""

    def call(function: Callable[[], None]) -> None:
        threads = [threading.Thread(target=function, name=f"issue-{k}", daemon=True) for k in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return call


@dataclass
class Issue:
    """What was issued: grows while the series runs, so that an interruption leaves it readable."""

    settings: EffectiveSettings
    series: Series
    first_id: int
    """The id of the series' first sample."""
    recorder: Recorder
    sut: SystemUnderTest
    clock: Clock
    timed: bool
    """False in accuracy mode: everything is issued, no limit ends it."""
    stop_requested: Callable[[], bool]
    patience_s: float
    """How long to wait for one answer before asking again whether to stop."""
    threads: IssueThreads | None = None
    """Server: who issues; None is the run's own thread."""
    start_ns: int = 0
    scheduled: array[int] = field(default_factory=lambda: array("q"))
    issued: array[int] = field(default_factory=lambda: array("q"))
    all_answered: int = 0
    """Every query before this one is known to be answered."""
    message: str = ""
    """How it ended, in the official words; empty if every generated query was issued."""
    is_error: bool = False

    @property
    def queries(self) -> int:
        return len(self.issued)

    def end(self, message: str, *, error: bool = False) -> None:
        self.message, self.is_error = message, error


def issue(work: Issue) -> None:
    """Issue all queries of the series, then flush and wait for the answers that are still out."""
    work.start_ns = work.clock.now_ns()
    {
        Scenario.SingleStream: _single_stream,
        Scenario.MultiStream: _multi_stream,
        Scenario.Server: _on_schedule,
        Scenario.Offline: _at_once,
    }[work.settings.scenario](work)
    if work.recorder.failed or work.stop_requested():
        return
    work.sut.flush()
    await_answers(work)


def await_answers(work: Issue) -> None:
    """Wait until every issued sample is answered, the system fails or the run is stopped."""
    stop = work.first_id + work.queries * work.series.samples_per_query
    missing = work.recorder.first_missing(work.first_id, stop)
    while missing < stop and not work.recorder.failed:
        if not work.recorder.wait(missing, work.patience_s) and work.stop_requested():
            return
        missing = work.recorder.first_missing(missing, stop)


def _limits(work: Issue) -> tuple[int, int, int, int]:
    """(natural end: queries, absolute ns; early end: queries, absolute ns)."""
    if not work.timed:
        return _NEVER, _NEVER, _NEVER, _NEVER
    s = work.settings
    return (
        s.min_query_count,
        work.start_ns + s.target_duration_ms * 1_000_000,
        s.max_query_count or _NEVER,
        work.start_ns + s.max_duration_ms * 1_000_000 if s.max_duration_ms else _NEVER,
    )


def _check_limits(work: Issue, queries: int, now_ns: int) -> bool:
    """After a query: is this the end? Says why in `work`. The order of checks is the official one."""
    enough, until_ns, most, latest_ns = _limits(work)
    natural = work.settings.scenario is not Scenario.Server
    if natural and queries >= enough and now_ns >= until_ns:
        work.end(ENDED)
    elif queries >= most:
        work.end(f"IssueQueryThread 0 Ending early: Max query count reached. query_count {queries}", error=True)
    elif now_ns > latest_ns:
        elapsed = now_ns - work.start_ns
        work.end(f"IssueQueryThread 0 Ending early: Max test duration reached. duration_ns {elapsed}", error=True)
    return bool(work.message)


def _single_stream(work: Issue) -> None:
    """One sample at a time: the next goes out when the last is answered."""
    now, issue_query, recorder = work.clock.now_ns, work.sut.issue, work.recorder
    done, record, sample = recorder.done, work.issued.append, work.first_id
    enough, until_ns, most, latest_ns = _limits(work)
    work.scheduled = work.issued  # due when the system is free: issued at once
    query = 0
    for low in range(0, work.series.query_count, _CHUNK):
        for index in work.series.indices[low : low + _CHUNK].tolist():
            at = now()
            record(at)
            issue_query(sample, index)
            if not done[sample] and not _answered(work, sample):
                return
            sample += 1
            query += 1
            if (at >= until_ns and query >= enough) or query >= most or at > latest_ns:
                if _check_limits(work, query, at):
                    return
        if recorder.failed:
            return
    if work.timed:
        work.end(RAN_OUT, error=True)


def _multi_stream(work: Issue) -> None:
    """One query of several samples at a time: the next goes out when all of the last are answered."""
    now, issue_query, recorder = work.clock.now_ns, work.sut.issue, work.recorder
    answered, record, low = recorder.answered_at_least, work.issued.append, work.first_id
    enough, until_ns, most, latest_ns = _limits(work)
    size, query = work.series.samples_per_query, 0
    work.scheduled = work.issued
    chunk = max(1, _CHUNK // size) * size
    for start in range(0, len(work.series.indices), chunk):
        indices = work.series.indices[start : start + chunk].tolist()
        for k in range(0, len(indices), size):
            high = low + size
            at = now()
            record(at)
            issue_query(range(low, high), indices[k : k + size])
            if answered[0] < high and not _all_answered(work, low, high):
                return
            low = high
            query += 1
            if (at >= until_ns and query >= enough) or query >= most or at > latest_ns:
                if _check_limits(work, query, at):
                    return
        if recorder.failed:
            return
    if work.timed:
        work.end(RAN_OUT, error=True)


def _all_answered(work: Issue, low: int, high: int) -> bool:
    return all(work.recorder.done[low:high]) or all(_answered(work, sample) for sample in range(low, high))


def _answered(work: Issue, position: int) -> bool:
    while not work.recorder.wait(position, work.patience_s):
        if work.stop_requested():
            return False
    return not work.recorder.failed


def _at_once(work: Issue) -> None:
    """Offline: one query with every sample."""
    indices = work.series.indices.astype(np.int64, copy=False)
    work.scheduled.append(work.start_ns)
    work.issued.append(work.clock.now_ns())
    work.sut.issue(np.arange(work.first_id, work.first_id + len(indices)), indices)
    if work.timed and not _check_limits(work, 1, work.issued[0]) and work.series.query_count == 1:
        work.end(RAN_OUT, error=True)


def _on_schedule(work: Issue) -> None:
    """Server: queries go out when due; late ones at once, one after another."""
    if work.threads is not None:
        _by_threads(work, work.threads)
        return
    with precise_sleep():
        if work.settings.requested.server_coalesce_queries:
            _coalesced(work)
        else:
            _separate(work)


def _separate(work: Issue) -> None:
    now, sleep_until, issue_query = work.clock.now_ns, work.clock.sleep_until, work.sut.issue
    recorder, sample, start = work.recorder, work.first_id, work.start_ns
    scheduled, issued = work.scheduled.append, work.issued.append
    limited = work.timed and bool(work.settings.max_query_count or work.settings.max_duration_ms)
    most_out = work.settings.max_async_queries if work.timed else 0
    query = 0
    for low in range(0, work.series.query_count, _CHUNK):
        dues = work.series.due_ns[low : low + _CHUNK].tolist()
        indices = work.series.indices[low : low + _CHUNK].tolist()
        for k, offset in enumerate(dues):
            due = start + offset
            at = now()
            if at < due:
                sleep_until(due)
                at = now()
            scheduled(due)
            issued(at)
            issue_query((sample,), indices[k : k + 1])
            sample += 1
            query += 1
            if recorder.failed:
                return
            if most_out and _too_many_out(work, query, most_out):
                return
            if limited and _check_limits(work, query, at):
                return


def _coalesced(work: Issue) -> None:
    """Everything that is due goes out as one query; each sample keeps its own due time."""
    now, dues = work.clock.now_ns, work.series.due_ns + work.start_ns
    recorder, total, query = work.recorder, work.series.query_count, 0
    most_out = work.settings.max_async_queries if work.timed else 0
    while query < total:
        at = now()
        if at < dues[query]:
            work.clock.sleep_until(int(dues[query]))
            at = now()
        ready = max(query + 1, int(np.searchsorted(dues, at, side="right")))
        work.scheduled.extend(dues[query:ready].tolist())
        work.issued.extend([at] * (ready - query))
        work.sut.issue(range(work.first_id + query, work.first_id + ready), work.series.indices[query:ready].tolist())
        query = ready
        if recorder.failed:
            return
        if most_out and _too_many_out(work, query, most_out):
            return
        if work.timed and _check_limits(work, query, at):
            return


def _by_threads(work: Issue, threads: IssueThreads) -> None:
    """The threads take turns: one waits for the next query, and lets the next thread wait while it issues.

    So a slow `issue` does not delay the query after it, as long as a thread is free. Queries are taken, and
    limits checked, under one lock: what was issued is always the beginning of the series.
    """
    lock, ended = threading.Lock(), threading.Event()
    failures: list[BaseException] = []
    dues = work.series.due_ns + work.start_ns

    def lane() -> None:
        try:
            with precise_sleep():
                taken = _take(work, lock, ended, dues, 0)
                while taken is not None:
                    low, high = taken
                    indices = work.series.indices[low:high].tolist()
                    work.sut.issue(range(work.first_id + low, work.first_id + high), indices)
                    taken = _take(work, lock, ended, dues, high)
        except BaseException as error:  # raised again on the run's thread
            failures.append(error)
            ended.set()

    try:
        threads(lane)
    finally:
        ended.set()
    if failures:
        raise failures[0]


def _take(work: Issue, lock: threading.Lock, ended: threading.Event, dues: I64, issued: int) -> tuple[int, int] | None:
    """Wait until the next query is due and take it: its (first, last + 1) sample. None when there is none.

    issued: the queries up to the one that this thread has just issued.
    """
    with lock:
        low = work.queries
        if issued and _limit_reached(work, issued):
            ended.set()
        if low >= work.series.query_count or ended.is_set() or work.recorder.failed:
            return None
        at = work.clock.now_ns()
        if at < dues[low]:
            work.clock.sleep_until(int(dues[low]))
            at = work.clock.now_ns()
        if ended.is_set():
            return None
        coalesce = work.settings.requested.server_coalesce_queries
        high = max(low + 1, int(np.searchsorted(dues, at, side="right"))) if coalesce else low + 1
        work.scheduled.extend(dues[low:high].tolist())
        work.issued.extend([at] * (high - low))
        return low, high


def _limit_reached(work: Issue, queries: int) -> bool:
    """After these queries, the last of which has just been issued."""
    if work.message or not work.timed:
        return bool(work.message)
    most = work.settings.max_async_queries
    if most and _too_many_out(work, queries, most):
        return True
    return _check_limits(work, queries, work.issued[queries - 1])


def _too_many_out(work: Issue, queries: int, most: int) -> bool:
    """Are more than `most` queries without an answer? Looks only at those after the last that had none before it."""
    done = work.recorder.done_view[work.first_id + work.all_answered : work.first_id + queries]
    if len(done) <= most:
        return False
    missing = np.flatnonzero(done == 0)
    work.all_answered += int(missing[0]) if len(missing) else len(done)
    if len(missing) <= most:
        return False
    work.end(
        f"IssueQueryThread 0 Ending early: Too many outstanding queries. issued {queries} outstanding {len(missing)}",
        error=True,
    )
    return True
