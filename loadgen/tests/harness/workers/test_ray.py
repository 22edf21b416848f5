"""Replicas on a real local Ray cluster of two nodes, one processor each: where they run, and what breaks them."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.benchmark import BackendSpec, Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.workers import Workers, opened
from loadgen.harness.workers.failure import WorkerError
from loadgen.results import Result
from loadgen.settings import Scenario

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Its address. Both nodes can import `worker_models`, and say that they have two GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from loadgen.harness.workers import ray_replicas  # says how to install Ray where it is missing

        assert ray_replicas
        from ray.cluster_utils import Cluster

        has = {"num_cpus": 1, "num_gpus": 2}
        nodes = Cluster(initialize_head=True, head_node_args={**has, "include_dashboard": False})
        nodes.add_node(**has)
        nodes.wait_for_nodes()
        yield str(nodes.address)
        nodes.shutdown()


@pytest.fixture
def replicas(cluster: str, tmp_path: Path) -> Callable[..., Any]:
    """Two of a model of `worker_models`, one a node."""
    (tmp_path / "model.bin").write_text("weights")

    def make(model: str, device: str = "cpu", gpus_per_worker: int = 1, **extra: Any) -> Any:
        workers = Workers(replicas=2, ray_address=cluster, gpus_per_worker=gpus_per_worker)
        options = BackendOptions(tmp_path, devices=(device,), extra=extra)
        return opened(workers, f"worker_models:{model}", options, found=pytest.fail, install="./benchmarks/x[y]")

    return make


def test_two_replicas_on_two_nodes_answer_every_scenario(replicas: Any, measured: Callable[..., Result]) -> None:
    with replicas("Squares") as ready:
        assert len({backend.node_id for backend in ready.backends}) == 2
        assert [(loaded.device, loaded.dtype) for loaded in ready.loaded] == [("cpu with 0 threads", "int64")] * 2
        for scenario in Scenario:
            result = measured(ready.backends, scenario, max_batch=8)
            assert result.valid, (scenario, result.reasons)


def test_two_devices_a_replica_reach_the_backend(replicas: Any) -> None:
    """Ray gives each as many, and inside they count from 0."""
    with replicas("Squares", "cuda", gpus_per_worker=2) as ready:
        assert [loaded.device for loaded in ready.loaded] == ["cuda:0+cuda:1 with 0 threads"] * 2
        assert [loaded.versions["visible"].count(",") for loaded in ready.loaded] == [1, 1]


def test_a_replica_that_is_killed_mid_run_ends_it(replicas: Any, measured: Callable[..., Result]) -> None:
    with replicas("Where", seconds=0.05) as ready:
        processes = [int(backend.submit(np.arange(1)).result()[0]) for backend in ready.backends]
        assert len(set(processes)) == 2
        threading.Timer(0.5, os.kill, (processes[1], signal.SIGKILL)).start()
        result = measured(ready.backends)
    assert not result.valid
    assert any("WorkerError: replica 1 on node " in error and " died: " in error for error in result.errors)


def test_a_replica_that_does_not_load_names_its_node_and_the_reason(cluster: str, tmp_path: Path) -> None:
    from loadgen.harness.workers.ray_replicas import joined

    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("seven b")
    with joined("worker_models:Squares", [BackendOptions(model, extra={"refuse": 1})], cluster) as (replica,):
        with pytest.raises(InputError, match=r"replica 0 on node .*: dtype 'int3': use float32"):
            replica.load()
        (model / "weights").write_text("six by")
        with pytest.raises(InputError, match=r"weights has 6 bytes, 7 where the run was started: copy it to this node"):
            replica.load()
        shutil.rmtree(model)
        with pytest.raises(
            InputError, match="model is not there: every node needs the model's folder at the same path"
        ):
            replica.load()


def test_a_package_that_a_node_lacks_is_named_with_the_command(replicas: Any) -> None:
    command = r"replica \d on node .* no_such_framework, .*: pip install './benchmarks/x\[y\]' there"
    with pytest.raises(InputError, match=command), replicas("NeedsFramework"):
        pass


def test_a_cluster_without_room_says_what_is_missing(cluster: str, tmp_path: Path) -> None:
    from loadgen.harness.workers.ray_replicas import joined

    shares = [BackendOptions(tmp_path, devices=("cuda:0", "cuda:1", "cuda:2"), threads=3)] * 2
    missing = r"2 replicas need 6 CPU, 6 GPU; the Ray cluster of 2 nodes has 2 CPU \(2 free\), 4 GPU \(4 free\)"
    with pytest.raises(InputError, match=missing), joined("m:M", shares, cluster, place_timeout_s=0.5):
        pass


@pytest.mark.parametrize("model", ["Squares", "RaisesItsOwn"])
def test_a_failing_prediction_brings_its_traceback_into_the_result(
    replicas: Any, measured: Callable[..., Result], model: str
) -> None:
    with replicas(model, bad=13) as ready:
        result = measured(ready.backends, max_batch=1)
    assert not result.valid
    failed = ": OwnError: error 5 at the valve" if model == "RaisesItsOwn" else ": RuntimeError: no square for that"
    assert any("failed: WorkerError: replica" in error and failed in error for error in result.errors)
    assert any("worker_models.py" in text and "in predict" in text for text in result.details)


def test_outputs_that_cannot_travel_fail_the_prediction(replicas: Any) -> None:
    with replicas("Unsendable") as ready:
        future = ready.backends[0].submit(np.arange(1))
        with pytest.raises(WorkerError, match="replica 0 on node") as raised:
            future.result(60)
    assert "pickle" in "".join(traceback.format_exception(raised.value))


def test_the_command_line_takes_replicas(
    cluster: str,
    benchmark_of: Callable[..., Benchmark],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    made = benchmark_of()
    made.backends["remote"] = BackendSpec("worker_models:Squares")  # type: ignore[index]
    made.profiles["mini"].model_options["bad"] = 13  # type: ignore[index]
    chosen = [
        "--scenario",
        "Offline",
        "--mode",
        "accuracy",
        "--backend",
        "remote",
        "--data",
        "files",
        "--output",
        "out",
    ]
    assert invoke(made, [*chosen, "--replicas", "2", "--ray-address", cluster]) == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "failed: WorkerError: replica" in printed
    assert ": RuntimeError: no square for that" in printed
    assert '"workers": "2 Ray replicas"' in Path("out/results.json").read_text()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_no_cluster_is(address: str) -> None:
    """Ray itself would try for minutes."""
    from loadgen.harness.workers.ray_replicas import joined

    began = time.monotonic()
    with pytest.raises(InputError, match=r"no Ray cluster can be reached .* use --ray-address local"):
        joined("m:M", [BackendOptions(Path())], address).__enter__()
    assert time.monotonic() - began < 30
