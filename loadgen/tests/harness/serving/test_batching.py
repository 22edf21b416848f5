"""Dynamic batching under real threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.serving import Batching, BatchingSystem, PredictionError


class Answers:
    """A responder that keeps what it is given."""

    def __init__(self) -> None:
        self.data: dict[int, bytes] = {}
        self.failures: list[str] = []
        self.details: list[str] = []
        self.changed = threading.Event()

    keep = None

    def complete(
        self, ids: Any, data: Any = None, offsets: Any = None, n_tokens: Any = None, at_ns: Any = None
    ) -> None:
        for k, one in enumerate([ids] if isinstance(ids, int) else ids):
            assert one not in self.data
            self.data[one] = data[offsets[k] : offsets[k + 1]]
        self.changed.set()

    def first_token(self, ids: Any, data: Any = None, offsets: Any = None, at_ns: Any = None) -> None: ...

    def fail(self, message: str, details: str = "") -> None:
        self.failures.append(message)
        self.details.append(details)
        self.changed.set()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the system did not answer in a minute"
        time.sleep(0.001)


@pytest.fixture
def made(benchmark_of: Callable[..., Benchmark]) -> Callable[..., tuple[BatchingSystem, Any, Answers]]:
    benchmark_of()
    import fake_bench  # type: ignore[import-not-found]

    systems: list[BatchingSystem] = []

    def make(max_batch: int, bad: int = -1, **more: Any) -> tuple[BatchingSystem, Any, Answers]:
        backend, answers = fake_bench.Squares(BackendOptions(Path())), Answers()
        backend.bad = bad
        dataset = fake_bench.Numbers(Path())
        system = BatchingSystem("squares", [backend], dataset, fake_bench.encode, Batching(max_batch, **more))
        system.start(answers)
        systems.append(system)
        return system, backend, answers

    return make


def test_a_single_sample_is_answered_before_issue_returns(made: Any) -> None:
    system, _, answers = made(8)
    system.issue(0, 5)
    assert int.from_bytes(answers.data[0], "little") == 25
    system.stop()


def test_a_full_batch_does_not_wait(made: Any) -> None:
    system, backend, answers = made(4, max_wait_s=60)
    for k in range(8):
        system.issue((k,), [k])
    wait_for(lambda: len(answers.data) == 8)
    assert backend.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
    system.stop()


def test_a_part_batch_goes_out_after_the_wait(made: Any) -> None:
    system, _, answers = made(4, max_wait_s=0.05)
    began = time.monotonic()
    system.issue((0,), [3])
    wait_for(lambda: bool(answers.data))
    assert time.monotonic() - began >= 0.05
    system.stop()


def test_flush_sends_what_waits(made: Any) -> None:
    system, _, answers = made(4, max_wait_s=60)
    system.issue((0,), [3])
    system.flush()
    wait_for(lambda: bool(answers.data))
    system.stop()


def test_an_offline_query_is_cut_longest_first(made: Any) -> None:
    system, backend, answers = made(16)
    system.issue(np.arange(200), np.arange(200) % 50)
    wait_for(lambda: len(answers.data) == 200)
    costs = [[index % 7 for index in batch] for batch in backend.batches]
    assert all(len(batch) <= 16 for batch in costs)
    in_order = [cost for batch in costs for cost in batch]
    assert in_order == sorted(in_order, reverse=True)
    assert all(int.from_bytes(data, "little") == (i % 50) ** 2 for i, data in answers.data.items())
    system.stop()


def test_offline_batches_keep_the_budget(made: Any) -> None:
    system, backend, answers = made(16, max_cost=12)
    system.issue(np.arange(200), np.arange(200) % 50)
    wait_for(lambda: len(answers.data) == 200)
    costs = [[index % 7 for index in batch] for batch in backend.batches]
    assert all(max(batch) * len(batch) <= 12 for batch in costs)
    assert {len(batch) for batch in costs} == {2, 3, 4, 6, 12, 16}  # what costs nothing fills a batch
    system.stop()


def test_server_batches_keep_the_budget_and_join_equal_costs(made: Any) -> None:
    """Costs are indices modulo 7: the oldest, of cost 1, goes with the other of its cost."""
    system, backend, answers = made(4, max_wait_s=0.05, max_cost=12)
    system.issue((0, 1, 2, 3), [1, 6, 8, 13])
    wait_for(lambda: len(answers.data) == 4)
    assert backend.batches == [[1, 8], [6, 13]]
    system.stop()


def test_a_batch_that_fills_the_budget_does_not_wait(made: Any) -> None:
    system, backend, answers = made(16, max_wait_s=60, max_cost=12)
    for k, index in enumerate([6, 13]):
        system.issue((k,), [index])
    wait_for(lambda: len(answers.data) == 2)
    assert backend.batches == [[6, 13]]
    system.stop()


def test_a_failure_names_the_samples_and_answers_none_of_them(made: Any) -> None:
    system, _, answers = made(2, bad=4)
    system.issue((0, 1), [3, 4])
    wait_for(lambda: bool(answers.failures))
    assert "sample index 3, 4 failed: RuntimeError: no square for that" in answers.failures[0]
    assert "Squares" not in answers.failures[0]
    assert "in submit" in answers.details[0], "the model's own lines"
    assert not answers.data
    system.stop()


def test_a_query_of_arrays_is_sorted_however_short(made: Any) -> None:
    system, backend, _ = made(2)
    system.issue(np.arange(4), np.array([1, 6, 3, 5]))
    wait_for(lambda: len(backend.batches) == 2)
    assert backend.batches == [[6, 5], [3, 1]]
    system.stop()


def test_a_failure_in_single_stream_is_raised(made: Any) -> None:
    system, _, _ = made(1, bad=4)
    with pytest.raises(PredictionError, match="sample index 4"):
        system.issue(0, 4)
    system.stop()


def test_each_backend_computes_a_loaded_sample_before_the_first_query(made: Any) -> None:
    system, backend, answers = made(4, bad=4)
    system.warm_up([3, 4, 5])
    assert backend.batches == [[3]]
    assert not answers.data
    with pytest.raises(PredictionError, match="sample index 4 failed: RuntimeError: no square for that"):
        system.warm_up([4, 5])
    system.stop()


def test_input_error_is_no_subclass_of_what_models_raise() -> None:
    assert not issubclass(InputError, (ValueError, RuntimeError))


class Held:
    """A backend whose answers come when the test lets them."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.futures: list[Future[Any]] = []

    def load(self) -> Loaded:
        return Loaded("cpu", "float32")

    def submit(self, batch: Any) -> Future[Any]:
        self.batches.append(list(batch))
        self.futures.append(Future())
        return self.futures[-1]

    def close(self) -> None: ...

    def answer(self, number: int) -> None:
        self.futures[number].set_result(np.array(self.batches[number], np.int64))


@pytest.fixture
def held(benchmark_of: Callable[..., Benchmark]) -> tuple[BatchingSystem, Held, Answers]:
    benchmark_of()
    import fake_bench

    backend, answers = Held(), Answers()
    system = BatchingSystem("held", [backend], fake_bench.Numbers(Path()), fake_bench.encode, Batching(16))
    system.start(answers)
    return system, backend, answers


def test_a_second_batch_has_half_the_samples_of_the_first(held: Any) -> None:
    system, backend, _ = held
    system.issue(range(6), list(range(6)))
    wait_for(lambda: backend.batches == [[0, 1, 2, 3, 4, 5]])
    for k in (6, 7):
        system.issue((k,), [k])
    time.sleep(0.05)
    assert len(backend.batches) == 1, "two are too few while six compute"
    system.issue((8,), [8])
    wait_for(lambda: backend.batches[1:] == [[6, 7, 8]])
    for number in range(2):
        backend.answer(number)
    system.stop()


def test_fewer_go_when_the_first_is_answered_or_nothing_more_comes(held: Any) -> None:
    system, backend, answers = held
    system.issue(range(6), list(range(6)))
    wait_for(lambda: len(backend.batches) == 1)
    system.issue((6,), [6])
    backend.answer(0)
    wait_for(lambda: backend.batches[1:] == [[6]])
    system.issue((7, 8), [7, 8])
    wait_for(lambda: backend.batches[2:] == [[7, 8]])
    backend.answer(1)
    system.issue((9,), [9])  # half of two
    wait_for(lambda: backend.batches[3:] == [[9]])
    for number in (2, 3):
        backend.answer(number)
    wait_for(lambda: len(answers.data) == 10)
    system.issue(range(10, 16), list(range(10, 16)))
    wait_for(lambda: len(backend.batches) == 5)
    system.issue((16,), [16])
    system.flush()
    wait_for(lambda: backend.batches[5:] == [[16]])
    for number in (4, 5):
        backend.answer(number)
    system.stop()
