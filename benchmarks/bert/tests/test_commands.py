"""The commands that get or make files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench_bert.assets import ASSETS
from bench_bert.benchmark import BENCHMARK
from bench_bert.mini.prepare import WEIGHTS
from loadgen.harness.cli import invoke


def test_the_miniature_can_be_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ["--steps", "10", "--batch", "2", "--windows", "64", "--workers", "1", "--device", "cpu"]
    assert invoke(BENCHMARK, ["train-mini", "--output", str(tmp_path / "w.npz"), *few]) == 0
    assert "training on cpu" in capfd.readouterr().out
    with np.load(tmp_path / "w.npz") as made, np.load(WEIGHTS) as committed:
        assert {name: made[name].shape for name in made} == {name: committed[name].shape for name in committed}


def test_training_never_falls_back_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert invoke(BENCHMARK, ["train-mini", "--device", "cuda"]) == 2
    assert "sees no GPU; use --device cpu" in capfd.readouterr().err


@pytest.mark.parametrize("backend", BENCHMARK.backends)
def test_fetch_knows_the_files_of_each_backend(backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(BENCHMARK, ["fetch", "--check", "--backend", backend, "--data", str(tmp_path)]) == 2
    printed = capfd.readouterr()
    assert printed.out.count(": missing") == 3  # data, vocabulary, weights
    assert "3 of 3 files are not right" in printed.err


def test_every_official_file_can_be_checked() -> None:
    assert all(asset.has_checksum and asset.address.startswith("https://") for asset in ASSETS)
    assert len({asset.path for asset in ASSETS}) == len(ASSETS)
