"""Time: the one real clock. `loadgen.testing.FakeClock` is its stand-in."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30  # linux/prctl.h


class Lock(Protocol):
    """What `Clock.wait` waits for: a `threading.Lock` that somebody else releases."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...


class Clock(Protocol):
    def now_ns(self) -> int:
        """Nanoseconds on a monotonic clock, never 0."""

    def wall_ns(self) -> int:
        """Nanoseconds of the system's calendar clock, to check the other against."""

    def sleep_until(self, due_ns: int) -> None:
        """Return at `due_ns` or as soon after as the system can; at once if it has passed."""

    def wait(self, lock: Lock, timeout_s: float) -> bool:
        """Acquire `lock` within the time; False if nobody released it."""


class RealClock:
    """The system's monotonic clock."""

    now_ns = staticmethod(time.perf_counter_ns)
    wall_ns = staticmethod(time.time_ns)

    @staticmethod
    def sleep_until(due_ns: int) -> None:
        left = due_ns - time.perf_counter_ns()
        if left > 0:
            time.sleep(left * 1e-9)

    @staticmethod
    def wait(lock: Lock, timeout_s: float) -> bool:
        return lock.acquire(timeout=timeout_s)


@contextmanager
def precise_sleep() -> Iterator[None]:
    """Ask Linux to wake this thread on time: by default it may sleep 50 us longer to save power."""
    if not sys.platform.startswith("linux"):
        yield
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    before = prctl(_PR_GET_TIMERSLACK)
    prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1))
    try:
        yield
    finally:
        if before > 0:
            prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(before))
