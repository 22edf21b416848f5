"""Live progress of a run: read from its columns by a thread of its own, at no cost to the issuer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from loadgen.settings import Scenario

if TYPE_CHECKING:
    from loadgen.issuer import Issue

_PERIOD_S = 0.25
_RECENT = 4096  # answers that the percentiles so far are taken from, spread over all of them


@dataclass(frozen=True)
class Progress:
    """A look at a running series. Counts are samples."""

    issued: int
    completed: int
    total: int | None
    """None where the time, not the count, ends the series."""
    elapsed_s: float
    rate: float
    """Completed samples a second so far."""
    p50_ns: int | None
    p99_ns: int | None
    eta_s: float | None


class Reporter:
    """Calls `report` four times a second between `with` and its end, and once at the end."""

    def __init__(self, work: Issue, report: Callable[[Progress], None] | None) -> None:
        self._work, self._report = work, report
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="loadgen-progress", daemon=True)

    def __enter__(self) -> Reporter:
        if self._report:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._report:
            self._stop.set()
            self._thread.join()
            if self._work.start_ns:
                self._report(look(self._work))

    def _loop(self) -> None:
        assert self._report is not None
        while not self._stop.wait(_PERIOD_S):
            if self._work.start_ns:
                self._report(look(self._work))


def look(work: Issue) -> Progress:
    """The series as it stands. Safe while other threads issue and answer."""
    size, settings = work.series.samples_per_query, work.settings
    issued = work.queries * size
    done = work.recorder.done_view[work.first_id : work.first_id + issued].copy()  # others write meanwhile
    answered = np.flatnonzero(done)
    now = work.clock.now_ns()
    elapsed = (now - work.start_ns) / 1e9
    some = answered[:: max(1, len(answered) // _RECENT)]
    p50 = p99 = None
    if len(some):
        scheduled = work.scheduled[: work.queries]  # a copy: the issuer may go on appending
        due = np.array([scheduled[q] for q in (some // size).tolist()], np.int64)
        p50, p99 = (int(x) for x in np.percentile(done[some] - due, [50, 99]))
    timed_total = settings.scenario in (Scenario.Server, Scenario.Offline) or not work.timed
    total = len(work.series.indices) if timed_total else None
    rate = len(answered) / elapsed if elapsed > 0 else 0.0
    return Progress(
        issued=issued,
        completed=len(answered),
        total=total,
        elapsed_s=elapsed,
        rate=rate,
        p50_ns=p50,
        p99_ns=p99,
        eta_s=_eta(work, total, len(answered), rate, elapsed),
    )


def _eta(work: Issue, total: int | None, answered: int, rate: float, elapsed: float) -> float | None:
    settings = work.settings
    if settings.scenario is Scenario.Server and work.timed and work.series.query_count:
        return max(0.0, int(work.series.due_ns[-1]) / 1e9 - elapsed)
    if total is not None:
        return (total - answered) / rate if rate else None
    by_count = (settings.min_query_count * work.series.samples_per_query - answered) / rate if rate else None
    by_time = settings.target_duration_ms / 1e3 - elapsed
    return None if by_count is None else max(0.0, by_count, by_time)
