"""What is kept of how samples went through a system."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import BackendOptions, Measures
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.serving import Batching, BatchingSystem
from loadgen.harness.serving.flow import Flow, measured


def test_sums_of_slices_that_widen_are_those_of_all() -> None:
    """Against plain numpy over the same events, far beyond the time that the first slices cover."""
    rng = np.random.default_rng(0)
    at = np.sort(rng.uniform(5.0, 5.0 + 1000.0, 20_000))
    sizes, waited, computed = rng.integers(1, 9, len(at)), rng.uniform(0, 1, len(at)), rng.uniform(0, 2, len(at))
    queue = rng.integers(0, 500, len(at))
    flows = [Flow(), Flow()]
    for flow in flows:
        flow.began_s = 5.0
    for number, (when, size, wait, compute, depth) in enumerate(
        zip(at.tolist(), sizes.tolist(), waited.tolist(), computed.tolist(), queue.tolist(), strict=True)
    ):
        flow = flows[number % 3 == 0]
        flow.formed(size, when, depth)
        flow.done(size, when, wait, compute)
    found = measured(flows)
    total = sizes.sum()
    assert found["waiting_mean_ns"] == pytest.approx(1e9 * waited.sum() / total)
    assert found["computing_mean_ns"] == pytest.approx(1e9 * computed.sum() / total)
    assert found["batch_size_mean"] == pytest.approx(sizes.mean())
    assert found["waiting_samples_max"] == queue.max()
    assert dict(zip(found["batch_size"], found["batches"], strict=True)) == dict(enumerate(np.bincount(sizes)[1:], 1))
    ends = np.asarray(found["slice_end_s"])
    width = ends[0]
    assert width == 0.5, "2,048 of the first width are 32 s, 2,048 of this 1,024"
    place = ((at - 5.0) / width).astype(int)
    assert len(ends) == place.max() + 1
    highest = np.zeros(len(ends))
    np.maximum.at(highest, place, queue)
    assert np.array_equal(found["slice_waiting"], highest)
    answered = np.bincount(place, sizes)
    assert np.allclose(found["slice_waited_s"], np.bincount(place, waited) / answered, equal_nan=True)
    assert np.allclose(found["slice_computed_s"], np.bincount(place, computed) / answered, equal_nan=True)


def test_nothing_is_measured_of_nothing() -> None:
    assert measured([]) == measured([Flow()]) == {}


class Counting:
    """A responder that counts answers."""

    keep = None

    def __init__(self) -> None:
        self.count = 0

    def complete(self, ids: Any, *_: Any, **__: Any) -> None:
        self.count += np.size(ids)

    def first_token(self, *_: Any, **__: Any) -> None: ...

    def fail(self, message: str, details: str = "") -> None:
        raise AssertionError(message, details)

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while self.count < count:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def _system(benchmark_of: Callable[..., Benchmark], max_batch: int, wait_s: float) -> tuple[BatchingSystem, Counting]:
    benchmark_of()
    import fake_bench  # type: ignore[import-not-found]

    class Slow(fake_bench.Squares):  # type: ignore[misc]
        def submit(self, batch: Any) -> Future[Any]:
            time.sleep(0.03)
            future: Future[Any] = super().submit(batch)
            return future

    backend, dataset = Slow(BackendOptions(Path())), fake_bench.Numbers(Path())
    rules = Batching(max_batch, wait_s)
    system: BatchingSystem = BatchingSystem("squares", [backend], dataset, fake_bench.encode, rules)
    responder = Counting()
    system.start(responder)
    return system, responder


def test_a_batch_that_waits_and_is_computed(benchmark_of: Callable[..., Benchmark]) -> None:
    system, responder = _system(benchmark_of, 8, 0.05)
    system.issue([0, 1, 2], [3, 4, 5])
    responder.wait_for(3)
    system.stop()
    assert isinstance(system, Measures)
    found = system.measured()
    assert (found["batch_size_mean"], found["waiting_samples_max"]) == (3.0, 3.0)
    assert 50e6 <= found["waiting_mean_ns"] < 500e6
    assert 30e6 <= found["computing_mean_ns"] < 500e6


def test_an_offline_querys_samples_wait_from_its_start(benchmark_of: Callable[..., Benchmark]) -> None:
    system, responder = _system(benchmark_of, 4, 0.0)
    system.issue(np.arange(10), np.arange(10))
    responder.wait_for(10)
    system.stop()
    found = system.measured()
    assert dict(zip(found["batch_size"], found["batches"], strict=True)) == {4: 2, 2: 1}
    assert found["waiting_samples_max"] == 10
    assert np.asarray(found["slice_waiting"]).max() == 10
    assert found["waiting_mean_ns"] > 15e6, "those of the later batches waited for the first to be computed"


def test_single_stream_forms_no_batches(benchmark_of: Callable[..., Benchmark]) -> None:
    system, _ = _system(benchmark_of, 8, 0.0)
    system.issue(0, 5)
    system.stop()
    assert system.measured() == {}


def test_an_event_costs_little() -> None:
    """A batch makes two: together a few microseconds of its worker's time, beside milliseconds of computing."""
    flow, count = Flow(), 20_000
    began = time.process_time()
    for number in range(count):
        flow.formed(8, 0.001 * number, 5)
        flow.done(8, 0.001 * number, 0.1, 0.1)
    assert (time.process_time() - began) / count < 20e-6
