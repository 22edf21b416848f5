"""Server queries that several threads issue."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from loadgen import clock
from loadgen.run import run
from loadgen.settings import Scenario
from loadgen.testing import FakeClock, FakeLibrary, FakeSystem
from loadgen.testing import short_test as settings


@pytest.mark.parametrize("coalesce", [False, True])
def test_a_query_does_not_wait_for_those_before_it_to_be_issued(coalesce: bool) -> None:
    class Meeting(FakeSystem):
        """Its first four queries are issued only when all of them are there."""

        def issue(self, ids: Any, indices: Any) -> None:
            if len(names) < 4:
                names.append(threading.current_thread().name)
                all_here.wait(60)
            super().issue(ids, indices)

    names: list[str] = []
    all_here = threading.Barrier(4)
    asked = settings(Scenario.Server, server_target_qps=200.0, server_coalesce_queries=coalesce)
    result = run(Meeting(), FakeLibrary(), replace(asked, server_num_issue_query_threads=4))
    assert not result.errors
    assert sorted(names) == [f"issue-{k}" for k in range(4)]
    assert result.query_count == run(FakeSystem(), FakeLibrary(), asked).query_count


def test_a_failing_issue_thread_ends_the_run() -> None:
    class Failing(FakeSystem):
        def issue(self, ids: Any, indices: Any) -> None:
            if 20 in ids:
                raise RuntimeError("the device is gone")
            super().issue(ids, indices)

    asked = settings(Scenario.Server, min_duration_ms=2000, server_target_qps=600.0, server_num_issue_query_threads=3)
    result = run(Failing(), FakeLibrary(), asked)
    assert not result.valid
    assert result.query_count < 40
    assert "RuntimeError: the device is gone" in result.reasons[0]


@pytest.mark.parametrize("threads", [0, 2])
def test_too_many_outstanding_queries_end_the_run(threads: int) -> None:
    fake = FakeClock()
    asked = settings(Scenario.Server, server_max_async_queries=5, server_num_issue_query_threads=threads)
    result = run(FakeSystem(fake, latency_ns=900_000), FakeLibrary(), asked, clock=fake)
    message = "IssueQueryThread 0 Ending early: Too many outstanding queries. issued"
    assert not result.valid
    assert any(r.startswith(message) for r in result.reasons), result.reasons


@pytest.mark.parametrize("due_us", [-5, 0, 3, 100, 1000])
def test_a_spinning_clock_is_on_time(due_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a sleep takes 50 us longer than it should, and a look at the time 1 us."""

    def look() -> int:
        now_us[0] += 1
        return now_us[0] * 1000

    def sleep(seconds: float) -> None:
        now_us[0] += round(seconds * 1e6) + 50

    now_us = [1_000_000]
    monkeypatch.setattr(clock.time, "perf_counter_ns", look)
    monkeypatch.setattr(clock.time, "sleep", sleep)
    due = now_us[0] + due_us
    clock.SpinningClock().sleep_until(due * 1000)
    assert 0 <= now_us[0] - due < 10
