"""Workers as the command line starts them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadgen.harness.benchmark import BackendSpec, Benchmark
from loadgen.harness.cli import invoke

OFFLINE = ["--scenario", "Offline", "--mode", "accuracy"]


@pytest.fixture
def made(benchmark_of: Callable[..., Benchmark], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """Its backend `remote` can be imported by children; it stands in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    benchmark = benchmark_of()
    spread = BackendSpec("worker_models:Squares", devices=("cpu", "cuda"), dtypes=("float32",), spreads=True)
    benchmark.backends["remote"] = spread  # type: ignore[index]
    return benchmark


def record(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "results.json").read_text())
    return found


def test_threads_and_processes_compute(made: Benchmark) -> None:
    assert invoke(made, [*OFFLINE, "--workers", "2", "--max-cost", "12", "--output", "threads"]) == 0
    processes = [*OFFLINE, "--backend", "remote", "--workers", "2", "--worker-kind", "process"]
    assert invoke(made, [*processes, "--output", "processes"]) == 0
    assert '"workers": "2 process"' in Path("processes/results.json").read_text()


def test_several_devices_a_worker_are_in_the_record(made: Benchmark) -> None:
    chosen = [*OFFLINE, "--backend", "remote", "--device", "cuda", "--gpus-per-worker", "2", "--worker-kind", "process"]
    assert invoke(made, [*chosen, "--output", "spread"]) == 0
    text = Path("spread/results.json").read_text()
    assert '"workers": "1 process, 2 GPUs each"' in text
    assert "cuda:0+cuda:1" in text


def test_several_devices_without_cuda_are_the_users_fault(made: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(made, ["--backend", "remote", "--gpus-per-worker", "2"]) == 2
    assert "needs --device cuda, not cpu" in capsys.readouterr().err


def test_replicas_are_the_workers(made: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(made, ["--replicas", "2", "--workers", "2"]) == 2
    assert "takes the place of --workers" in capsys.readouterr().err


def test_without_ray_the_command_to_install_it_is_printed(
    made: Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "loadgen.harness.workers.ray_replicas", raising=False)
    assert invoke(made, ["--replicas", "2", "--data", "files"]) == 2
    assert "pip install './loadgen[ray]'" in capsys.readouterr().err


def test_a_childs_traceback_is_shown_and_kept(made: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    made.profiles["mini"].model_options["bad"] = 13  # type: ignore[index]
    chosen = [*OFFLINE, "--backend", "remote", "--worker-kind", "process", "--workers", "2", "--output", "out"]
    assert invoke(made, chosen) == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "failed: WorkerError: worker" in printed
    assert "worker_models.py" in Path("out/errors.txt").read_text()
