"""The commands that get or make files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench_resnet50.assets import FULL, TORCHVISION
from bench_resnet50.benchmark import BENCHMARK
from bench_resnet50.mini.prepare import WEIGHTS
from loadgen.harness.assets.asset import Asset
from loadgen.harness.cli import invoke


def test_the_miniature_can_be_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ["--images", "128", "--epochs", "1", "--workers", "1", "--device", "cpu"]
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


@pytest.mark.parametrize(
    ("profile", "backend", "count"),
    [
        ("full", "onnxruntime", 3),
        ("full", "tvm", 3),
        ("full", "tensorflow", 3),
        ("torchvision", "pytorch", 3),
        ("torchvision", "ncnn", 4),
    ],
)
def test_fetch_knows_the_files_of_each_backend(
    profile: str, backend: str, count: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fetch", "--check", "--profile", profile, "--backend", backend, "--data", str(tmp_path)]
    assert invoke(BENCHMARK, arguments) == 2
    printed = capfd.readouterr()
    assert printed.out.count(": missing") == count  # images, classes, weights
    assert f"{count} of {count} files are not right" in printed.err


@pytest.mark.parametrize("assets", [FULL, TORCHVISION])
def test_every_official_file_can_be_checked(assets: tuple[Asset, ...]) -> None:
    assert all(asset.has_checksum for asset in assets)
    assert all(asset.address.startswith("http") or asset.gate for asset in assets)
    assert len({asset.path for asset in assets}) == len(assets)
