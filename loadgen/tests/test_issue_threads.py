"""Server queries that several threads issue."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loadgen.clock import SpinningClock
from loadgen.run import run
from loadgen.settings import Scenario
from loadgen.testing import FakeClock, FakeLibrary, FakeSystem
from loadgen.testing import short_test as settings

MS = 1_000_000


class _Slow:
    """Takes 10 ms in `issue`, in whichever thread."""

    name = "slow to issue"

    def __init__(self, fail_at: int = -1) -> None:
        self.threads: set[str] = set()
        self.fail_at = fail_at

    def start(self, respond: Any) -> None:
        self.respond = respond

    def issue(self, ids: Any, indices: Any) -> None:
        self.threads.add(threading.current_thread().name)
        if self.fail_at in ids:
            raise RuntimeError("the device is gone")
        time.sleep(0.01)
        self.respond.complete(list(ids))

    def flush(self) -> None: ...

    def stop(self) -> None: ...


@pytest.mark.parametrize("coalesce", [False, True])
def test_several_threads_keep_a_schedule_that_one_cannot(coalesce: bool) -> None:
    asked = settings(Scenario.Server, min_duration_ms=500, server_target_qps=200.0, server_coalesce_queries=coalesce)
    slow = _Slow()
    several = run(slow, FakeLibrary(), replace(asked, server_num_issue_query_threads=4))
    assert slow.threads == {f"issue-{k}" for k in range(4)}
    alone = run(_Slow(), FakeLibrary(), replace(asked, server_coalesce_queries=False))
    assert several.query_count == alone.query_count
    assert several.latencies_ns is not None
    assert alone.latencies_ns is not None
    assert (several.latencies_ns >= 10 * MS).all()
    assert np.median(several.latencies_ns) < np.median(alone.latencies_ns) / 2


def test_a_failing_issue_thread_ends_the_run() -> None:
    asked = settings(Scenario.Server, min_duration_ms=2000, server_target_qps=600.0, server_num_issue_query_threads=3)
    result = run(_Slow(fail_at=20), FakeLibrary(), asked)
    assert not result.valid
    assert result.query_count < 40
    assert "RuntimeError: the device is gone" in result.reasons[0]


@pytest.mark.parametrize("threads", [0, 2])
def test_too_many_outstanding_queries_end_the_run(threads: int) -> None:
    clock = FakeClock()
    asked = settings(Scenario.Server, server_max_async_queries=5, server_num_issue_query_threads=threads)
    result = run(FakeSystem(clock, latency_ns=900_000), FakeLibrary(), asked, clock=clock)
    message = "IssueQueryThread 0 Ending early: Too many outstanding queries. issued"
    assert not result.valid
    assert any(r.startswith(message) for r in result.reasons), result.reasons


def test_a_spinning_clock_is_on_time() -> None:
    clock = SpinningClock()
    late = []
    for _ in range(20):
        due = clock.now_ns() + MS
        clock.sleep_until(due)
        late.append(clock.now_ns() - due)
    assert 0 <= min(late) < 20_000, "a sleeping clock is never less than about 50 us late"
