"""Who waits for an answer, and who looks at many at once: what an answer that takes no lock heeds when it is done."""

from __future__ import annotations

import contextlib
import threading
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator

from loadgen.clock import Clock


class Attention:
    """done: the answers' times by position; 0 is none. refuse: called with a position that was answered twice."""

    def __init__(self, done: memoryview, clock: Clock, refuse: Callable[[int], None]) -> None:
        self.wanted = array("q", [0])
        """Not 0: who has marked an answer without the lock calls `attend`."""
        self.looks = array("q", [0])
        """Grows whenever somebody begins or ends to look at many: who marks several without the lock compares."""
        self.lock = threading.RLock()  # a signal's handler may answer, too
        self._done, self._clock, self._refuse = done, clock, refuse
        self._waiting = -1
        self._wake = threading.Lock()
        self._wake.acquire()

    def attend(self, position: int, at: int) -> None:
        """After an answer that was marked without the lock: was it the only one, and does somebody wait for it?"""
        with self.lock:
            if self._done[position] != at:  # who held the lock had looked before, and marked after
                self._refuse(position)
        self.notify()

    def attend_each(self, positions: Iterable[int], refused: Collection[int], at: int) -> None:
        """`attend`, of several; refused: those that were not marked."""
        for position in positions:
            if position not in refused:
                self.attend(position, at)

    @contextlib.contextmanager
    def many(self) -> Iterator[None]:
        """Look at answers and mark them with nobody between."""
        with self.lock:
            self.wanted[0] += 1
            self.looks[0] += 1
            try:
                yield
            finally:
                self.looks[0] += 1
                self.wanted[0] -= 1

    def notify(self, force: bool = False) -> None:
        """Wake whoever waits for an answer that has come."""
        if not self.wanted[0]:
            return
        with self.lock:
            k = self._waiting
            if k < 0 or not (force or self._done[k]):
                return
            self.wait_for(-1)
        with contextlib.suppress(RuntimeError):  # it gave up just now, and waits again
            self._wake.release()

    def wait_for(self, position: int) -> None:
        """From now on `notify` wakes for this position; -1: for none."""
        with self.lock:
            self.wanted[0] += (position >= 0) - (self._waiting >= 0)
            self._waiting = position

    def wait(self, timeout_s: float) -> bool:
        """Until `notify` wakes; False if it did not in time."""
        return self._clock.wait(self._wake, timeout_s)
