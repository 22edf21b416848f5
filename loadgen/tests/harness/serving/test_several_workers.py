"""Several workers of the batching system, which share one queue."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import Backend, Loaded
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.serving import Batching, BatchingSystem
from loadgen.results import Result
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings
from loadgen.testing import FakeLibrary

SHORT = TestSettings(
    min_duration_ms=100,
    min_query_count=700,  # what early stopping needs at the 99th percentile
    single_stream_expected_latency_ns=1000,
    multi_stream_expected_latency_ns=1000,
    server_target_qps=5000.0,
    server_target_latency_ns=1_000_000_000,
    offline_expected_qps=10_000.0,
)


@pytest.fixture(autouse=True)
def _tidy(benchmark_of: Callable[..., Benchmark]) -> Iterator[None]:
    """`fake_bench` is here; afterwards no worker's thread is left."""
    benchmark_of()
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker")]


class Recorded:
    """A backend of this process that notes what it computes, as slowly as asked."""

    def __init__(self, seconds: float = 0.0, bad: int = -1) -> None:
        self.batches: list[list[int]] = []
        self.seconds, self.bad = seconds, bad
        self.running = 0

    def load(self) -> Loaded:
        return Loaded("cpu", "int64")

    def submit(self, batch: Any) -> Future[Any]:
        self.running += 1
        assert self.running == 1, "two threads at once"
        self.batches.append(batch.tolist())
        time.sleep(self.seconds)
        self.running -= 1
        if self.bad in batch:
            raise RuntimeError("no square for that")
        future: Future[Any] = Future()
        future.set_result(batch**2)
        return future

    def close(self) -> None: ...


class Held:
    """A backend whose futures the test sets."""

    def __init__(self) -> None:
        self.given: list[tuple[list[int], Future[Any]]] = []

    def load(self) -> Loaded:
        return Loaded("cpu", "int64")

    def submit(self, batch: Any) -> Future[Any]:
        self.given.append((batch.tolist(), Future()))
        return self.given[-1][1]

    def close(self) -> None: ...


class Answers:
    """A responder that counts."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self.failures: list[str] = []

    keep = None

    def complete(
        self, ids: Any, data: Any = None, offsets: Any = None, n_tokens: Any = None, at_ns: Any = None
    ) -> None:
        self.seen.update([ids] if isinstance(ids, int) else ids.tolist())

    def first_token(self, ids: Any, data: Any = None, offsets: Any = None, at_ns: Any = None) -> None: ...

    def fail(self, message: str, details: str = "") -> None:
        self.failures.append(message)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in 60 s"
        time.sleep(0.001)


def squares(backends: Sequence[Backend[Any, Any]], max_batch: int = 4, **options: Any) -> BatchingSystem[Any, Any]:
    """Of 50 numbers; the cost of one is what is left of it modulo 7."""
    import fake_bench  # type: ignore[import-not-found]

    dataset = fake_bench.Numbers(Path())
    return BatchingSystem("squares", backends, dataset, fake_bench.encode, Batching(max_batch, **options))


def started(backends: Sequence[Backend[Any, Any]], **options: Any) -> tuple[BatchingSystem[Any, Any], Answers]:
    answers = Answers()
    system = squares(backends, **options)
    system.start(answers)
    return system, answers


def measured(backends: Sequence[Backend[Any, Any]], scenario: Scenario, **options: Any) -> Result:
    duration = {"min_duration_ms": 0} if scenario is Scenario.Offline else {}
    library = FakeLibrary(total_count=50, performance_count=50)
    return run(squares(backends, **options), library, replace(SHORT, scenario=scenario, **duration), watchdog_s=60)


@pytest.mark.parametrize("scenario", list(Scenario))
@pytest.mark.parametrize("max_cost", [None, 20])
def test_every_scenario_is_valid_with_two_workers(scenario: Scenario, max_cost: int | None) -> None:
    backends = [Recorded(), Recorded()]
    result = measured(backends, scenario, max_cost=max_cost)
    assert result.valid, result.reasons
    batches = backends[0].batches + backends[1].batches
    assert sum(map(len, batches)) == result.sample_count + len(backends)  # each warmed up with one
    assert all(max(i % 7 for i in batch) * len(batch) <= 20 for batch in batches) or max_cost is None


def test_both_workers_take_part_and_each_sample_is_answered_once() -> None:
    backends = [Recorded(0.001), Recorded(0.001)]
    system, answers = started(backends)
    system.issue(np.arange(400), np.arange(400) % 50)
    wait_for(lambda: len(answers.seen) == 400)
    assert set(answers.seen.values()) == {1}
    assert all(len(backend.batches) > 10 for backend in backends)
    system.stop()


def test_a_slow_worker_gets_fewer_batches() -> None:
    backends = [Recorded(0.02), Recorded(0.001)]
    system, answers = started(backends)
    system.issue(np.arange(400), np.arange(400) % 50)
    wait_for(lambda: len(answers.seen) == 400)
    assert len(backends[0].batches) * 3 < len(backends[1].batches)
    system.stop()


def test_an_idle_worker_goes_before_one_that_computes() -> None:
    backends = [Held(), Held()]
    system, answers = started(backends, max_batch=1)
    wait_for(lambda: system._waiting._idlers == 2)
    for k in range(4):
        system.issue((k,), [k])
        wait_for(lambda: sum(len(backend.given) for backend in backends) == k + 1)  # noqa: B023
        assert abs(len(backends[0].given) - len(backends[1].given)) <= 1
    system.issue((4,), [4])
    time.sleep(0.05)
    assert [len(backend.given) for backend in backends] == [2, 2]  # two in flight each, the fifth waits
    for backend in backends:
        backend.given[0][1].set_result(np.zeros(1))
    wait_for(lambda: sum(len(backend.given) for backend in backends) == 5)
    for backend in backends:
        for _, future in backend.given:
            if not future.done():
                future.set_result(np.zeros(1))
    wait_for(lambda: len(answers.seen) == 5)
    system.stop()


def test_a_second_batch_goes_to_a_backend_that_still_computes_the_first() -> None:
    backend = Held()
    system, answers = started([backend], max_batch=2)
    system.issue((0, 1), [0, 1])
    wait_for(lambda: len(backend.given) == 1)
    system.issue((2,), [2])
    wait_for(lambda: len(backend.given) == 2)
    for indices, future in backend.given:
        future.set_result(np.array(indices))
    wait_for(lambda: len(answers.seen) == 3)
    system.stop()


@pytest.mark.parametrize("scenario", [Scenario.Offline, Scenario.Server, Scenario.MultiStream])
def test_a_failing_prediction_names_its_sample(scenario: Scenario) -> None:
    result = measured([Recorded(bad=13), Recorded(bad=13)], scenario, max_batch=1)
    assert not result.valid
    assert any("sample index 13 failed: RuntimeError: no square for that" in error for error in result.errors)


def test_stop_waits_for_busy_workers_and_drops_what_waits() -> None:
    backends = [Recorded(0.1), Recorded(0.1)]
    system, _ = started(backends)
    system.issue(np.arange(400), np.arange(400) % 50)
    wait_for(lambda: all(backend.batches for backend in backends))
    system.stop()
    assert sum(len(backend.batches) for backend in backends) <= 4
    assert all(backend.running == 0 for backend in backends)


def test_stop_does_not_wait_for_ever_for_a_future(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadgen.harness.serving.batching._STOP_S", 0.1)
    backend = Held()
    system, _ = started([backend], max_batch=1)
    system.issue((0, 1, 2), [0, 1, 2])
    wait_for(lambda: len(backend.given) == 2)
    began = time.monotonic()
    system.stop()
    assert time.monotonic() - began < 30


def test_a_system_can_start_again_after_a_stop() -> None:
    system, _ = started([Recorded(), Recorded()])
    system.stop()
    answers = Answers()
    system.start(answers)
    system.issue((0, 1), [3, 4])
    system.flush()
    wait_for(lambda: len(answers.seen) == 2)
    system.stop()
