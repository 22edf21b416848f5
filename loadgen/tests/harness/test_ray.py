"""Replicas on a real local Ray cluster of two nodes, one processor each: where they run, and what breaks them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.serving.batching import BatchingSystem
from loadgen.harness.workers.pool import Workers, opened
from loadgen.results import Result
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings
from loadgen.testing import FakeLibrary

HERE = Path(__file__).parent
SHORT = TestSettings(
    min_duration_ms=0,
    min_query_count=700,  # what early stopping needs at the 99th percentile
    single_stream_expected_latency_ns=1000,
    multi_stream_expected_latency_ns=1000,
    server_target_qps=500.0,
    server_target_latency_ns=1_000_000_000,
    offline_expected_qps=1000.0,
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Its address. Both nodes can import `worker_models`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from loadgen.harness.workers import ray_replicas  # says how to install Ray where it is missing

        assert ray_replicas
        from ray.cluster_utils import Cluster

        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        yield str(nodes.address)
        nodes.shutdown()


@pytest.fixture
def replicas(cluster: str, tmp_path: Path, benchmark_of: Callable[..., Benchmark]) -> Callable[..., Any]:
    """Two of a model of `worker_models`, one a node."""
    benchmark_of()
    (tmp_path / "model.bin").write_text("weights")

    def make(model: str, count: int = 2, **extra: Any) -> Any:
        options = BackendOptions(tmp_path, extra=extra)
        return opened(
            Workers(replicas=count, ray_address=cluster), f"worker_models:{model}", options, found=pytest.fail
        )

    return make


def measured(backends: Any, scenario: Scenario = Scenario.Offline, max_batch: int = 8) -> Result:
    import fake_bench  # type: ignore[import-not-found]

    dataset = fake_bench.Numbers(Path())
    system = BatchingSystem("squares", backends, dataset, fake_bench.encode, max_batch=max_batch)
    few = {"min_query_count": 64} if scenario is Scenario.SingleStream else {}  # as above, at the 90th
    return run(system, FakeLibrary(50, 50), replace(SHORT, scenario=scenario, **few), watchdog_s=20)


def test_two_replicas_on_two_nodes_answer_every_scenario(replicas: Any) -> None:
    with replicas("Squares") as backends:
        assert len({backend.node_id for backend in backends}) == 2
        assert backends[0].device_name == "cpu with 0 threads"
        for scenario in Scenario:
            result = measured(backends, scenario)
            assert result.valid, (scenario, result.reasons)


def test_a_replica_that_is_killed_mid_run_ends_it(replicas: Any) -> None:
    with replicas("Where", seconds=0.05) as backends:
        processes = [int(backend.submit(np.arange(1)).result()[0]) for backend in backends]
        assert len(set(processes)) == 2
        threading.Timer(0.5, os.kill, (processes[1], signal.SIGKILL)).start()
        began = time.monotonic()
        result = measured(backends)
        assert time.monotonic() - began < 15
    assert not result.valid
    assert any("ReplicaError: replica 1 on node " in error and " died: " in error for error in result.errors)


def test_a_replica_that_does_not_load_names_its_node_and_the_reason(cluster: str, tmp_path: Path) -> None:
    from loadgen.harness.workers.ray_replicas import joined

    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("seven b")
    with joined("worker_models:Squares", BackendOptions(model, extra={"refuse": 1}), 1, cluster) as (replica,):
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


def test_a_cluster_without_room_says_what_is_missing(cluster: str, tmp_path: Path) -> None:
    from loadgen.harness.workers.ray_replicas import joined

    options = BackendOptions(tmp_path, device="cuda", threads=3)
    missing = r"2 replicas need 6 CPU, 2 GPU; the Ray cluster of 2 nodes has 2 CPU \(2 free\), 0 GPU \(0 free\)"
    with pytest.raises(InputError, match=missing), joined("m:M", options, 2, cluster, place_timeout_s=0.5):
        pass


def test_a_failing_prediction_names_its_sample_and_replica(
    cluster: str,
    benchmark_of: Callable[..., Benchmark],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    made = benchmark_of()
    made.backends["remote"] = "worker_models:Squares"  # type: ignore[index]
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
    assert "13" in printed
    assert "failed: ReplicaError: replica" in printed
    assert ": RuntimeError: no square for that" in printed
    assert '"workers": "2 Ray replicas"' in Path("out/results.json").read_text()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_no_cluster_is(address: str) -> None:
    from loadgen.harness.workers.ray_replicas import joined

    began = time.monotonic()
    with pytest.raises(InputError, match=r"no Ray cluster can be reached .* use --ray-address local"):
        joined("m:M", BackendOptions(Path()), 1, address).__enter__()
    assert time.monotonic() - began < 6


def test_without_ray_the_command_to_install_it_is_printed(
    benchmark_of: Callable[..., Benchmark],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "loadgen.harness.workers.ray_replicas", raising=False)
    assert invoke(benchmark_of(), ["--replicas", "2", "--data", "files"]) == 2
    assert "pip install './loadgen[ray]'" in capsys.readouterr().err
