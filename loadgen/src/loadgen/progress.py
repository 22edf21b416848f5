"""Live progress of a run: looked at by a thread of its own, at no cost to the issuer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

_PERIOD_S = 0.25
_REST = 20  # so many times as long as a look lasted nothing is looked at: it reads a column of all samples


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
    silent_s: float = 0.0
    """Since the last answer, once nothing was answered for a while,"""
    waiting: tuple[int, ...] = ()
    """and then the first ids that have none."""


class Reporter:
    """Calls `report` four times a second, or less often if a look takes long, between `with` and its end, and once at
    the end.

    look: called on the reporter's thread, and at the end on that of the `with`; None: nothing to report yet.
    """

    def __init__(self, look: Callable[[], Progress | None], report: Callable[[Progress], None] | None) -> None:
        self._look, self._report = look, report
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
            self._once(self._report)

    def _loop(self) -> None:
        assert self._report is not None
        took = 0.0
        while not self._stop.wait(max(_PERIOD_S, _REST * took)):
            began = time.thread_time()
            self._once(self._report)
            took = time.thread_time() - began

    def _once(self, report: Callable[[Progress], None]) -> None:
        seen = self._look()
        if seen is not None:
            report(seen)
