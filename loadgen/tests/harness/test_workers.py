"""Several workers: threads and processes that share one queue."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
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

from loadgen.contracts import Backend, BackendOptions, InputError
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.serving.batching import BatchingSystem
from loadgen.harness.workers.backend import ProcessBackend, WorkerError
from loadgen.harness.workers.pool import Workers, opened, share
from loadgen.results import Result
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings
from loadgen.testing import FakeLibrary

HERE = Path(__file__).parent
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
def _tidy(benchmark_of: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`fake_bench` is here, children can import `worker_models`; afterwards no process and no worker thread is left."""
    benchmark_of()
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)  # else each child imports pytest first
    yield
    assert not multiprocessing.active_children()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker")]
    gc.collect()
    assert "loadgen-ring" not in Path("/proc/self/maps").read_text()


class Recorded:
    """A backend of this process that notes what it computes, as slowly as asked."""

    def __init__(self, seconds: float = 0.0, bad: int = -1) -> None:
        self.batches: list[list[int]] = []
        self.seconds, self.bad = seconds, bad
        self.running = 0

    def load(self) -> None: ...

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

    def load(self) -> None: ...

    def submit(self, batch: Any) -> Future[Any]:
        self.given.append((batch.tolist(), Future()))
        return self.given[-1][1]

    def close(self) -> None: ...


class Answers:
    """A responder that counts."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self.failures: list[str] = []

    def complete(self, ids: Any, data: Any = None, offsets: Any = None, n_tokens: Any = None) -> None:
        self.seen.update([ids] if isinstance(ids, int) else ids)

    def first_token(self, ids: Any, data: Any = None, offsets: Any = None) -> None: ...

    def fail(self, message: str) -> None:
        self.failures.append(message)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in 5 s"
        time.sleep(0.001)


def squares(backends: Sequence[Backend], max_batch: int = 4, **options: Any) -> BatchingSystem:
    """Of 50 numbers; the cost of one is what is left of it modulo 7."""
    import fake_bench  # type: ignore[import-not-found]

    dataset = fake_bench.Numbers(Path())
    return BatchingSystem("squares", backends, dataset, fake_bench.encode, max_batch=max_batch, **options)


def started(backends: Sequence[Backend], **options: Any) -> tuple[BatchingSystem, Answers]:
    answers = Answers()
    system = squares(backends, **options)
    system.start(answers)
    return system, answers


def measured(backends: Sequence[Backend], scenario: Scenario, **options: Any) -> Result:
    duration = {"min_duration_ms": 0} if scenario is Scenario.Offline else {}
    library = FakeLibrary(total_count=50, performance_count=50)
    return run(squares(backends, **options), library, replace(SHORT, scenario=scenario, **duration), watchdog_s=20)


@pytest.mark.parametrize("scenario", list(Scenario))
@pytest.mark.parametrize("max_tokens", [None, 20])
def test_every_scenario_is_valid_with_two_workers(scenario: Scenario, max_tokens: int | None) -> None:
    backends = [Recorded(), Recorded()]
    result = measured(backends, scenario, max_tokens=max_tokens)
    assert result.valid, result.reasons
    batches = backends[0].batches + backends[1].batches
    assert sum(map(len, batches)) == result.sample_count + len(backends)  # each warmed up with one
    assert all(max(i % 7 for i in batch) * len(batch) <= 20 for batch in batches) or max_tokens is None


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
    wait_for(lambda: system._queue._idlers == 2)
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
    began = time.monotonic()
    system.stop()
    assert time.monotonic() - began < 1
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
    assert time.monotonic() - began < 2


def test_a_system_can_start_again_after_a_stop() -> None:
    system, _ = started([Recorded(), Recorded()])
    system.stop()
    answers = Answers()
    system.start(answers)
    system.issue((0, 1), [3, 4])
    system.flush()
    wait_for(lambda: len(answers.seen) == 2)
    system.stop()


def options(**extra: Any) -> BackendOptions:
    return BackendOptions(Path(), threads=6, extra=extra)


def test_workers_share_devices_or_threads() -> None:
    assert [one.device for one in share(BackendOptions(Path(), device="cuda"), 3)] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [one.threads for one in share(options(), 4)] == [1, 1, 1, 1]
    assert [one.threads for one in share(options(), 2)] == [3, 3]
    assert share(options(), 1) == [options()]
    assert [one.device for one in share(BackendOptions(Path(), device="cuda:3"), 2)] == ["cuda:3", "cuda:3"]


@pytest.mark.parametrize(
    "wrong", [{"replicas": 2, "count": 2}, {"replicas": 1, "kind": "process"}, {"ray_address": "auto"}]
)
def test_options_that_contradict_each_other(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"--replicas"):
        Workers(**wrong)


def test_two_processes_compute_in_every_scenario() -> None:
    with opened(Workers(2, "process"), "worker_models:Squares", options(), found=pytest.fail) as backends:
        assert {backend.device_name for backend in backends} == {"cpu with 3 threads"}  # type: ignore[attr-defined]
        for scenario in Scenario:
            result = measured(backends, scenario)
            assert result.valid, (scenario, result.reasons)


def test_both_processes_take_part_and_arrays_arrive_whole() -> None:
    with opened(Workers(2, "process"), "worker_models:Where", options(seconds=0.005), found=pytest.fail) as backends:
        futures = [backends[k % 2].submit(np.arange(3)) for k in range(4)]
        assert len({int(future.result()[0]) for future in futures} - {os.getpid()}) == 2
        big = np.random.default_rng(0).integers(0, 1000, (3, 1_000_001))
    with opened(Workers(1, "process"), "worker_models:Squares", options(), found=pytest.fail) as (backend,):
        for array in (big, big.T, big[:, ::2], big[:0]):
            assert np.array_equal(backend.submit(array).result(), array**2)
            assert backend.submit(array).result().flags.writeable


def test_a_batch_larger_than_the_ring_fits() -> None:
    backend = ProcessBackend("worker_models:Squares", options(), "small", ring_bytes=4096)
    backend.load()
    futures = [backend.submit(np.arange(100_000) + k) for k in range(3)]
    assert all(np.array_equal(future.result(), (np.arange(100_000) + k) ** 2) for k, future in enumerate(futures))
    backend.close()


def test_answers_of_a_backend_that_computes_later_find_their_batch() -> None:
    with opened(Workers(1, "process"), "worker_models:Later", options(bad=5), found=pytest.fail) as (backend,):
        futures = [backend.submit(np.array([k])) for k in range(7)]
        for k, future in enumerate(futures):
            if k == 5:
                with pytest.raises(WorkerError, match="worker 0: RuntimeError: no square for that"):
                    future.result()
            else:
                assert future.result().tolist() == [k**2]


def test_a_failing_prediction_in_a_process_names_its_sample() -> None:
    with opened(Workers(2, "process"), "worker_models:Squares", options(bad=13), found=pytest.fail) as backends:
        result = measured(backends, Scenario.Offline, max_batch=1)
    assert not result.valid
    assert any("sample index 13 failed: WorkerError: worker" in error for error in result.errors)


@pytest.mark.parametrize("scenario", [Scenario.SingleStream, Scenario.Offline])
def test_a_process_that_dies_fails_the_run_with_its_exit_code(scenario: Scenario) -> None:
    with opened(Workers(2, "process"), "worker_models:Squares", options(die=13), found=pytest.fail) as backends:
        began = time.monotonic()
        result = measured(backends, scenario)
        assert time.monotonic() - began < 10
    assert not result.valid
    assert any("ended with exit code 7: see what it printed" in error for error in result.errors)


def test_a_killed_process_is_named_with_its_signal() -> None:
    with opened(Workers(1, "process"), "worker_models:Where", options(seconds=5), found=pytest.fail) as (backend,):
        future = backend.submit(np.arange(1))
        (child,) = multiprocessing.active_children()
        assert child.pid
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"worker 0 ended with exit code -9 \(SIGKILL\)"):
            future.result(5)
        with pytest.raises(WorkerError, match=r"SIGKILL"):
            backend.submit(np.arange(1))


@pytest.mark.parametrize(
    ("model", "extra", "error", "message"),
    [
        ("Squares", {"refuse": 1}, InputError, "dtype 'int3': use float32"),
        ("Squares", {"break": 1}, WorkerError, "worker 0: the model was not loaded:\n.*no memory for that"),
        ("Squares", {"die": None}, WorkerError, "worker 0 ended with exit code 7"),
        ("NeedsFramework", {}, InputError, "needs the package no_such_framework, which is not installed on"),
    ],
)
def test_a_model_that_does_not_load(model: str, extra: dict[str, Any], error: type[Exception], message: str) -> None:
    workers = opened(Workers(1, "process"), f"worker_models:{model}", options(**extra), found=pytest.fail)
    with pytest.raises(error, match=f"(?s){message}"), workers:
        pass


def test_outputs_that_cannot_travel_fail_the_prediction() -> None:
    with opened(Workers(1, "process"), "worker_models:Unsendable", options(), found=pytest.fail) as (backend,):
        future = backend.submit(np.arange(1))
        with pytest.raises(WorkerError, match="cannot pickle"):
            future.result(5)


def test_a_process_closes_its_backend(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with opened(Workers(1, "process"), "worker_models:Squares", options(closed=note), found=pytest.fail):
        assert not note.exists()
    assert note.read_text() == "closed"


def test_the_command_line_takes_workers(
    benchmark_of: Callable[..., Benchmark],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = benchmark_of()
    made.backends["process"] = "worker_models:Squares"  # type: ignore[index]
    chosen = ["--scenario", "Offline", "--mode", "accuracy", "--workers", "2", "--max-tokens", "12"]
    assert invoke(made, [*chosen, "--output", "threads"]) == 0
    assert invoke(made, [*chosen, "--backend", "process", "--worker-kind", "process", "--output", "processes"]) == 0
    assert '"workers": "2 process"' in Path("processes/results.json").read_text()
    assert invoke(made, ["--replicas", "2", "--workers", "2"]) == 2
    assert "leave out --workers" in capsys.readouterr().err
