"""Stand-ins for tests of the load generator, of benchmarks and of vendors' systems."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loadgen.clock import Lock
from loadgen.contracts import Ints, Responder
from loadgen.results import Result
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings


class FakeClock:
    """Time that passes only when somebody sleeps or waits; `call_at` schedules what happens meanwhile.

    A test of a ten-minute run takes milliseconds. `tick_ns` is what each look at the clock costs, so that
    a loop that only looks comes to an end.
    """

    def __init__(self, tick_ns: int = 1) -> None:
        self._now_ns = 1_000_000
        self.wall_offset_ns = 1_700_000_000_000_000_000
        self._tick_ns = tick_ns
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def now_ns(self) -> int:
        self._now_ns += self._tick_ns
        return self._now_ns

    def wall_ns(self) -> int:
        """The calendar's time. Changing `wall_offset_ns` makes this clock jump."""
        return self._now_ns + self.wall_offset_ns

    def call_at(self, when_ns: int, event: Callable[[], None]) -> None:
        """Run `event` when time reaches `when_ns`; at equal times in the order of calls."""
        self._count += 1
        heapq.heappush(self._events, (when_ns, self._count, event))

    def sleep_until(self, due_ns: int) -> None:
        while self._events and self._events[0][0] <= due_ns:
            self._next()
        self._now_ns = max(self._now_ns, due_ns)

    def wait(self, lock: Lock, timeout_s: float) -> bool:
        give_up_ns = self._now_ns + int(timeout_s * 1e9)
        while not lock.acquire(False):
            if not self._events or self._events[0][0] > give_up_ns:
                self._now_ns = max(self._now_ns, give_up_ns)
                return lock.acquire(False)
            self._next()
        return True

    def _next(self) -> None:
        when_ns, _, event = heapq.heappop(self._events)
        self._now_ns = max(self._now_ns, when_ns)
        event()


@dataclass
class FakeLibrary:
    """Samples that need no loading; remembers what was loaded and unloaded."""

    total_count: int = 100
    performance_count: int = 100
    name: str = "fake library"
    loaded: list[list[int]] = field(default_factory=list)
    unloaded: list[list[int]] = field(default_factory=list)

    def load(self, indices: Sequence[int]) -> None:
        self.loaded.append(list(indices))

    def unload(self, indices: Sequence[int]) -> None:
        self.unloaded.append(list(indices))


@dataclass
class FakeSystem:
    """Answers each sample with its index as text, `latency_ns` after it was issued (0: at once)."""

    clock: FakeClock | None = None
    latency_ns: int = 0
    name: str = "fake system"
    queries: list[list[int]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def start(self, respond: Responder) -> None:
        self.respond = respond
        self.calls.append("start")

    def issue(self, ids: Ints, indices: Ints) -> None:
        single = isinstance(ids, int)
        some_ids: Sequence[int] = [ids] if single else [int(i) for i in ids]  # type: ignore[list-item, union-attr]
        some: Sequence[int] = [indices] if single else [int(i) for i in indices]  # type: ignore[list-item, union-attr]
        self.queries.append(list(some))
        if self.clock is None or not self.latency_ns:
            self._answer(some_ids, some)
        else:
            due = self.clock.now_ns() + self.latency_ns
            self.clock.call_at(due, lambda: self._answer(some_ids, some))

    def flush(self) -> None:
        self.calls.append("flush")

    def stop(self) -> None:
        self.calls.append("stop")

    def _answer(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        texts = [str(index).encode() for index in indices]
        offsets = [0]
        for text in texts:
            offsets.append(offsets[-1] + len(text))
        self.respond.complete(ids if len(ids) > 1 else ids[0], b"".join(texts), offsets)


def short_test(scenario: Scenario, **changes: Any) -> TestSettings:
    """A test of 100 ms in fake time whose queries take 1 ms; `changes` are `TestSettings` fields."""
    base = TestSettings(
        scenario=scenario,
        min_duration_ms=100,
        min_query_count=64,
        single_stream_expected_latency_ns=1e6,
        multi_stream_expected_latency_ns=1e6,
        server_target_qps=10_000.0,
        offline_expected_qps=2_000.0,
    )
    return replace(base, **changes)


def run_on_fake_clock(
    asked: TestSettings, latency_ns: int = 1_000_000, **options: Any
) -> tuple[Result, FakeSystem, FakeLibrary]:
    """Run a test against a fake system and library in no real time. `options` are those of `run`."""
    clock = FakeClock()
    system, library = FakeSystem(clock, latency_ns), FakeLibrary()
    return run(system, library, asked, clock=clock, **options), system, library
