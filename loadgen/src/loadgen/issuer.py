"""Issues one series of queries, on time. One function a scenario; the only module that waits.

Every function returns how the issuing ended. Latency counts from the time at which a query was due
(`scheduled`), never from when it was sent, so a system that falls behind cannot hide it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from loadgen.clock import precise_sleep
from loadgen.contracts import I64
from loadgen.settings import Scenario
from loadgen.state import IssueThreads, Part, RunState, attempt, refuse_early

_CHUNK = 8192  # queries turned from columns into Python integers at a time
_NEVER = 1 << 62
_PATIENCE_S = 0.5  # how often a waiting run looks whether it should stop

RAN_OUT = (
    "Ending early: Ran out of generated queries to issue before the minimum query count and test duration "
    "were reached. Please update the relevant expected latency or target qps in the TestSettings so they "
    "are more accurate."
)
ENDED = "Ending naturally: Minimum query count and test duration met."


def own_threads(count: int) -> IssueThreads:
    """Threads made for one series."""

    def call(function: Callable[[], None]) -> None:
        threads = [threading.Thread(target=function, name=f"issue-{k}", daemon=True) for k in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return call


def issue(state: RunState, part: Part) -> None:
    """Issue all queries of the series, then flush and wait for the answers that are still out."""
    part.start_ns = state.job.clock.now_ns()
    {
        Scenario.SingleStream: _single_stream,
        Scenario.MultiStream: _multi_stream,
        Scenario.Server: _on_schedule,
        Scenario.Offline: _at_once,
    }[state.settings.scenario](state, part)
    if state.recorder.failed or _gives_up(state, part):
        return
    with attempt(state, f"{state.name}.flush()"):
        state.job.sut.flush()
    await_answers(state, part)


def await_answers(state: RunState, part: Part) -> None:
    """Wait until every issued sample is answered, the system fails or the run is stopped."""
    stop = part.stop_id
    missing = state.recorder.first_missing(part.first_id, stop)
    while missing < stop and not state.recorder.failed:
        if not state.recorder.wait(missing, _PATIENCE_S) and _gives_up(state, part):
            return
        missing = state.recorder.first_missing(missing, stop)


def _gives_up(state: RunState, part: Part) -> bool:
    """Called while the run waits: has it waited too long for the next answer?"""
    limit_s, recorder = state.job.watchdog_s, state.recorder
    if limit_s is None:
        return False
    answered, now = int(np.count_nonzero(recorder.done_view)), state.job.clock.now_ns()
    if answered != part.seen_answers:
        part.seen_answers, part.seen_ns = answered, now
        return False
    if now - part.seen_ns < limit_s * 1e9:
        return False
    missing = np.flatnonzero(recorder.done_view == 0)[:5].tolist()
    recorder.fail(f"no answer for {limit_s:g} s; without one are ids {missing} and maybe more")
    return True


def _limits(state: RunState, part: Part) -> tuple[int, int, int, int]:
    """(natural end: queries, absolute ns; early end: queries, absolute ns)."""
    if not part.timed:
        return _NEVER, _NEVER, _NEVER, _NEVER
    s = state.settings
    return (
        s.min_query_count,
        part.start_ns + s.target_duration_ms * 1_000_000,
        s.max_query_count or _NEVER,
        part.start_ns + s.max_duration_ms * 1_000_000 if s.max_duration_ms else _NEVER,
    )


def _check_limits(state: RunState, part: Part, queries: int, now_ns: int) -> bool:
    """After a query: is this the end? Says why in the part. The order of checks is the official one."""
    enough, until_ns, most, latest_ns = _limits(state, part)
    natural = state.settings.scenario is not Scenario.Server
    if natural and queries >= enough and now_ns >= until_ns:
        part.end(ENDED)
    elif queries >= most:
        part.end(f"IssueQueryThread 0 Ending early: Max query count reached. query_count {queries}", error=True)
    elif now_ns > latest_ns:
        elapsed = now_ns - part.start_ns
        part.end(f"IssueQueryThread 0 Ending early: Max test duration reached. duration_ns {elapsed}", error=True)
    return bool(part.message)


def _single_stream(state: RunState, part: Part) -> None:
    """One sample at a time: the next goes out when the last is answered."""
    now, issue_query, recorder = state.job.clock.now_ns, state.job.sut.issue, state.recorder
    done, record, sample = recorder.done, part.issued.append, part.first_id
    enough, until_ns, most, latest_ns = _limits(state, part)
    part.scheduled = part.issued  # due when the system is free: issued at once
    query = 0
    for low in range(0, part.series.query_count, _CHUNK):
        for index in part.series.indices[low : low + _CHUNK].tolist():
            at = now()
            record(at)
            issue_query(sample, index)
            if not done[sample] and not _answered(state, part, sample):
                return
            sample += 1
            query += 1
            if (at >= until_ns and query >= enough) or query >= most or at > latest_ns:
                if _check_limits(state, part, query, at):
                    return
        refuse_early(state, part)
        if recorder.failed:
            return
    if part.timed:
        part.end(RAN_OUT, error=True)


def _multi_stream(state: RunState, part: Part) -> None:
    """One query of several samples at a time: the next goes out when all of the last are answered."""
    now, issue_query, recorder = state.job.clock.now_ns, state.job.sut.issue, state.recorder
    answered, record, low = recorder.answered_at_least, part.issued.append, part.first_id
    enough, until_ns, most, latest_ns = _limits(state, part)
    size, query = part.series.samples_per_query, 0
    part.scheduled = part.issued
    chunk = max(1, _CHUNK // size) * size
    for start in range(0, len(part.series.indices), chunk):
        indices = part.series.indices[start : start + chunk].tolist()
        for k in range(0, len(indices), size):
            high = low + size
            at = now()
            record(at)
            issue_query(range(low, high), indices[k : k + size])
            if answered[0] < high and not _all_answered(state, part, low, high):
                return
            low = high
            query += 1
            if (at >= until_ns and query >= enough) or query >= most or at > latest_ns:
                if _check_limits(state, part, query, at):
                    return
        refuse_early(state, part)
        if recorder.failed:
            return
    if part.timed:
        part.end(RAN_OUT, error=True)


def _all_answered(state: RunState, part: Part, low: int, high: int) -> bool:
    return all(state.recorder.done[low:high]) or all(_answered(state, part, sample) for sample in range(low, high))


def _answered(state: RunState, part: Part, position: int) -> bool:
    while not state.recorder.wait(position, _PATIENCE_S):
        if _gives_up(state, part):
            return False
    return not state.recorder.failed


def _at_once(state: RunState, part: Part) -> None:
    """Offline: one query with every sample."""
    indices = part.series.indices.astype(np.int64, copy=False)
    part.scheduled.append(part.start_ns)
    part.issued.append(state.job.clock.now_ns())
    state.job.sut.issue(np.arange(part.first_id, part.first_id + len(indices)), indices)
    if part.timed and not _check_limits(state, part, 1, part.issued[0]) and part.series.query_count == 1:
        part.end(RAN_OUT, error=True)


def _on_schedule(state: RunState, part: Part) -> None:
    """Server: queries go out when due; late ones at once, one after another."""
    count = state.settings.requested.server_num_issue_query_threads
    threads = state.job.issue_threads or (own_threads(count) if count else None)
    if threads is not None:
        _by_threads(state, part, threads)
        return
    with precise_sleep():
        if state.settings.requested.server_coalesce_queries:
            _coalesced(state, part)
        else:
            _separate(state, part)


def _separate(state: RunState, part: Part) -> None:
    now, sleep_until, issue_query = state.job.clock.now_ns, state.job.clock.sleep_until, state.job.sut.issue
    recorder, sample, start = state.recorder, part.first_id, part.start_ns
    scheduled, issued = part.scheduled.append, part.issued.append
    limited = part.timed and bool(state.settings.max_query_count or state.settings.max_duration_ms)
    most_out = state.settings.max_async_queries if part.timed else 0
    query = 0
    for low in range(0, part.series.query_count, _CHUNK):
        dues = part.series.due_ns[low : low + _CHUNK].tolist()
        indices = part.series.indices[low : low + _CHUNK].tolist()
        for offset, index in zip(dues, indices, strict=True):
            due = start + offset
            at = now()
            if at < due:
                sleep_until(due)
                at = now()
            scheduled(due)
            issued(at)
            issue_query((sample,), (index,))
            sample += 1
            query += 1
            if recorder.failed:
                return
            if most_out and _too_many_out(state, part, query, most_out):
                return
            if limited and _check_limits(state, part, query, at):
                return
        refuse_early(state, part)


def _coalesced(state: RunState, part: Part) -> None:
    """Everything that is due goes out as one query; each sample keeps its own due time."""
    now, sleep_until, issue_query = state.job.clock.now_ns, state.job.clock.sleep_until, state.job.sut.issue
    dues, indices = part.series.due_ns + part.start_ns, part.series.indices
    recorder, total, query = state.recorder, part.series.query_count, 0
    most_out = state.settings.max_async_queries if part.timed else 0
    while query < total:
        at = now()
        if at < dues[query]:
            sleep_until(int(dues[query]))
            at = now()
        ready = max(query + 1, int(np.searchsorted(dues, at, side="right")))
        part.scheduled.extend(dues[query:ready].tolist())
        part.issued.extend([at] * (ready - query))
        issue_query(range(part.first_id + query, part.first_id + ready), indices[query:ready].tolist())
        query = ready
        if recorder.failed:
            return
        if most_out and _too_many_out(state, part, query, most_out):
            return
        if part.timed and _check_limits(state, part, query, at):
            return


def _by_threads(state: RunState, part: Part, threads: IssueThreads) -> None:
    """The threads take turns: one waits for the next query, and lets the next thread wait while it issues.

    So a slow `issue` does not delay the query after it, as long as a thread is free. Queries are taken, and
    limits checked, under one lock: what was issued is always the beginning of the series.
    """
    turns = _Turns(state, part, part.series.due_ns + part.start_ns)
    try:
        threads(turns.lane)
    finally:
        turns.ended.set()
    if turns.failures:
        raise turns.failures[0]


@dataclass(frozen=True)
class _Turns:
    """What the threads that issue one series share."""

    state: RunState
    part: Part
    dues: I64
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)

    def lane(self) -> None:
        """The work of one thread."""
        issue_query, first, indices = self.state.job.sut.issue, self.part.first_id, self.part.series.indices
        try:
            with precise_sleep():
                taken = self.take(0)
                while taken is not None:
                    low, high = taken
                    issue_query(range(first + low, first + high), indices[low:high].tolist())
                    taken = self.take(high)
        except BaseException as error:  # raised again on the run's thread
            self.failures.append(error)
            self.ended.set()

    def take(self, issued: int) -> tuple[int, int] | None:
        """Wait until the next query is due and take it: its (first, last + 1) sample. None when there is none.

        issued: the queries up to the one that this thread has just issued.
        """
        state, part, clock = self.state, self.part, self.state.job.clock
        with self.lock:
            low = part.queries
            if issued and _limit_reached(state, part, issued):
                self.ended.set()
            if low >= part.series.query_count or self.ended.is_set() or state.recorder.failed:
                return None
            at = clock.now_ns()
            if at < self.dues[low]:
                clock.sleep_until(int(self.dues[low]))
                at = clock.now_ns()
            if self.ended.is_set():
                return None
            coalesce = state.settings.requested.server_coalesce_queries
            high = max(low + 1, int(np.searchsorted(self.dues, at, side="right"))) if coalesce else low + 1
            part.scheduled.extend(self.dues[low:high].tolist())
            part.issued.extend([at] * (high - low))
            return low, high


def _limit_reached(state: RunState, part: Part, queries: int) -> bool:
    """After these queries, the last of which has just been issued."""
    if part.message or not part.timed:
        return bool(part.message)
    most = state.settings.max_async_queries
    if most and _too_many_out(state, part, queries, most):
        return True
    return _check_limits(state, part, queries, part.issued[queries - 1])


def _too_many_out(state: RunState, part: Part, queries: int, most: int) -> bool:
    """Are more than `most` queries without an answer? Looks only at those after the last that had none before it."""
    done = state.recorder.done_view[part.first_id + part.all_answered : part.first_id + queries]
    if len(done) <= most:
        return False
    missing = np.flatnonzero(done == 0)
    part.all_answered += int(missing[0]) if len(missing) else len(done)
    if len(missing) <= most:
        return False
    part.end(
        f"IssueQueryThread 0 Ending early: Too many outstanding queries. issued {queries} outstanding {len(missing)}",
        error=True,
    )
    return True
