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


class SpinningClock(RealClock):
    """Sleeps until shortly before the time and then looks at the clock until it has come: `run(clock=SpinningClock())`.

    On time to the microsecond, at the price of a core. Only for systems that answer in `issue` or in another
    process: the spinning thread holds the interpreter's lock, so Python threads that answer get later.
    """

    def __init__(self, spin_ns: int = 120_000) -> None:
        """spin_ns: how long before the time to stop sleeping; about what a wake-up can be late."""
        self._spin_ns = spin_ns

    def sleep_until(self, due_ns: int) -> None:  # type: ignore[override] # static in RealClock, for speed
        now = time.perf_counter_ns
        left = due_ns - self._spin_ns - now()
        if left > 0:
            time.sleep(left * 1e-9)
        while now() < due_ns:
            pass


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
