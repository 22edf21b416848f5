"""Workers in threads and processes: what each is given, what they say of themselves, and everything that goes wrong."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.workers import Opened, Workers, opened
from loadgen.harness.workers.backend import ProcessBackend
from loadgen.harness.workers.failure import RemoteTraceback, WorkerError
from loadgen.harness.workers.pool import share
from loadgen.results import Result
from loadgen.settings import Scenario


def options(**extra: Any) -> BackendOptions:
    return BackendOptions(Path(), threads=6, extra=extra)


def on(*devices: str) -> BackendOptions:
    return BackendOptions(Path(), devices=devices)


def processes(model: str, count: int = 1, **extra: Any) -> AbstractContextManager[Opened[Any, Any]]:
    """Workers of `worker_models`, each in a process."""
    return opened(Workers(count, "process"), f"worker_models:{model}", options(**extra), found=pytest.fail)


def test_workers_share_devices_or_threads() -> None:
    assert [one.devices for one in share(on("cuda"), Workers(3))] == [("cuda:0",), ("cuda:1",), ("cuda:2",)]
    assert [one.threads for one in share(options(), Workers(4))] == [1, 1, 1, 1]
    assert [one.threads for one in share(options(), Workers(2))] == [3, 3]
    assert share(options(), Workers()) == [options()]
    assert share(on("cuda"), Workers()) == [on("cuda")]
    assert share(on("cuda:3"), Workers(2)) == [on("cuda:3")] * 2


def test_a_worker_gets_several_devices() -> None:
    pairs = [("cuda:0", "cuda:1"), ("cuda:2", "cuda:3")]
    assert [one.devices for one in share(on("cuda"), Workers(2, gpus_per_worker=2))] == pairs
    assert [one.devices for one in share(on("cuda"), Workers(1, gpus_per_worker=2))] == pairs[:1]
    assert share(on("cuda"), Workers(replicas=2, gpus_per_worker=2)) == [on("cuda:0", "cuda:1")] * 2
    assert share(on("cpu"), Workers(replicas=2)) == [on("cpu")] * 2


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_several_devices_a_worker_need_cuda(device: str) -> None:
    with pytest.raises(InputError, match=f"--gpus-per-worker 2 needs --device cuda, not {device}"):
        share(on(device), Workers(2, gpus_per_worker=2))


def test_a_replica_cannot_choose_its_device() -> None:
    with pytest.raises(InputError, match="--device cuda:1: Ray chooses the GPUs of a replica, use --device cuda"):
        share(on("cuda:1"), Workers(replicas=2))


def test_the_record_of_a_run_says_who_worked() -> None:
    assert str(Workers(2, "process")) == "2 process"
    assert str(Workers(2, gpus_per_worker=4)) == "2 thread, 4 GPUs each"
    assert str(Workers(replicas=2, gpus_per_worker=4)) == "2 Ray replicas, 4 GPUs each"


@pytest.mark.parametrize(
    "wrong", [{"replicas": 2, "count": 2}, {"replicas": 1, "kind": "process"}, {"ray_address": "auto"}]
)
def test_options_that_contradict_each_other(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"--replicas"):
        Workers(**wrong)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_two_devices_a_worker_reach_the_backend(kind: str) -> None:
    from worker_models import Squares  # type: ignore[import-not-found]

    workers = Workers(2, kind, gpus_per_worker=2)
    with opened(workers, "worker_models:Squares", on("cuda"), found=lambda: Squares) as ready:
        devices = [loaded.device for loaded in ready.loaded]
    assert devices == ["cuda:0+cuda:1 with 0 threads", "cuda:2+cuda:3 with 0 threads"]


def test_two_processes_compute_in_every_scenario(measured: Callable[..., Result]) -> None:
    with processes("Squares", 2) as ready:
        assert [(loaded.device, loaded.dtype) for loaded in ready.loaded] == [("cpu with 3 threads", "int64")] * 2
        for scenario in Scenario:
            result = measured(ready.backends, scenario)
            assert result.valid, (scenario, result.reasons)


def test_both_processes_take_part_and_arrays_arrive_whole() -> None:
    with processes("Where", 2, seconds=0.005) as ready:
        futures = [ready.backends[k % 2].submit(np.arange(3)) for k in range(4)]
        assert len({int(future.result()[0]) for future in futures} - {os.getpid()}) == 2
        big = np.random.default_rng(0).integers(0, 1000, (3, 1_000_001))
    with processes("Squares") as ready:
        (backend,) = ready.backends
        for array in (big, big.T, big[:, ::2], big[:0]):
            assert np.array_equal(backend.submit(array).result(), array**2)
            assert backend.submit(array).result().flags.writeable


def test_a_batch_larger_than_the_ring_fits() -> None:
    backend: ProcessBackend[Any, Any] = ProcessBackend("worker_models:Squares", options(), "small", ring_bytes=4096)
    backend.load()
    futures = [backend.submit(np.arange(100_000) + k) for k in range(3)]
    assert all(np.array_equal(future.result(), (np.arange(100_000) + k) ** 2) for k, future in enumerate(futures))
    backend.close()


def test_answers_of_a_backend_that_computes_later_find_their_batch() -> None:
    with processes("Later", bad=5) as ready:
        futures = [ready.backends[0].submit(np.array([k])) for k in range(7)]
        for k, future in enumerate(futures):
            if k == 5:
                with pytest.raises(WorkerError, match="worker 0: RuntimeError: no square for that"):
                    future.result()
            else:
                assert future.result().tolist() == [k**2]


def test_a_failing_prediction_brings_its_traceback_into_the_result(measured: Callable[..., Result]) -> None:
    with processes("Squares", 2, bad=13) as ready:
        result = measured(ready.backends, max_batch=1)
    assert not result.valid
    assert any("sample index 13 failed: WorkerError: worker" in error for error in result.errors)
    assert not any("Traceback" in error for error in result.errors)
    assert any("worker_models.py" in text and "in predict" in text for text in result.details)


@pytest.mark.parametrize("scenario", [Scenario.SingleStream, Scenario.Offline])
def test_a_process_that_dies_fails_the_run_with_its_exit_code(
    scenario: Scenario, measured: Callable[..., Result]
) -> None:
    with processes("Squares", 2, die=13) as ready:
        result = measured(ready.backends, scenario)
    assert not result.valid
    assert any("ended with exit code 7: see what it printed" in error for error in result.errors)


def test_a_killed_process_is_named_with_its_signal() -> None:
    with processes("Where", seconds=60) as ready:
        (backend,) = ready.backends
        future = backend.submit(np.arange(1))
        (child,) = multiprocessing.active_children()
        assert child.pid
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"worker 0 ended with exit code -9 \(SIGKILL\)"):
            future.result(60)
        with pytest.raises(WorkerError, match=r"SIGKILL"):
            backend.submit(np.arange(1))


@pytest.mark.parametrize(
    ("model", "extra", "error", "message"),
    [
        ("Squares", {"refuse": 1}, InputError, "worker 0: dtype 'int3': use float32"),
        ("Squares", {"break": 1}, WorkerError, "worker 0: ValueError: no memory for that"),
        ("Squares", {"die": None}, WorkerError, "worker 0 ended with exit code 7 before it was ready"),
        ("NeedsFramework", {}, InputError, "needs the package no_such_framework, which is not installed on"),
        ("MissesItsOwnModule", {}, WorkerError, "ModuleNotFoundError: No module named 'worker_models.parts'"),
    ],
)
def test_a_model_that_does_not_load(model: str, extra: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message), processes(model, **extra):
        pass


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_the_command_that_installs_a_missing_package_is_named(kind: str) -> None:
    from worker_models import NeedsFramework

    workers, install = Workers(1, kind), "./benchmarks/squares[numpy]"
    command = f"{platform.node()}: pip install './benchmarks/squares[numpy]' there"
    needy = opened(workers, "worker_models:NeedsFramework", options(), lambda: NeedsFramework, install)
    with pytest.raises(InputError) as raised, needy:
        pass
    assert str(raised.value).endswith(command)


def test_a_traceback_comes_as_the_cause() -> None:
    with pytest.raises(WorkerError) as raised, processes("Squares", **{"break": 1}):
        pass
    assert isinstance(raised.value.__cause__, RemoteTraceback)
    shown = "".join(traceback.format_exception(raised.value))
    assert "worker_models.py" in shown
    assert 'raise ValueError("no memory for that")' in shown


def test_an_exception_whose_class_cannot_travel_arrives_in_words() -> None:
    with processes("RaisesItsOwn") as ready:
        future = ready.backends[0].submit(np.arange(1))
        with pytest.raises(WorkerError, match="worker 0: OwnError: error 5 at the valve"):
            future.result(60)


def test_outputs_that_cannot_travel_fail_the_prediction() -> None:
    with processes("Unsendable") as ready, pytest.raises(WorkerError, match="cannot pickle"):
        ready.backends[0].submit(np.arange(1)).result(60)


def test_a_process_closes_its_backend(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with processes("Squares", closed=note):
        assert not note.exists()
    assert note.read_text() == "closed"


ELSEWHERE = """
import multiprocessing.reduction, os, select, signal, sys
del os.memfd_create, os.eventfd, os.eventfd_read, os.eventfd_write, select.poll, signal.pthread_sigmask
del multiprocessing.reduction.DupFd
sys.platform = "elsewhere"
from pathlib import Path
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.workers import ProcessSystem, Workers, opened
print("ray" in sys.modules)
try:
    ProcessSystem("m:s", name="one").start(type("R", (), {"keep": None}))
except InputError as error:
    print(error)
"""


def test_the_door_opens_on_every_system() -> None:
    """Only what is used needs Linux, and says so."""
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[:1] == ["False"], done.stderr
    assert "worker processes need Linux" in done.stdout
