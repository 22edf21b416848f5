"""The synthetic profile: full-size weights from a seed, and images of ImageNet's size."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bench_resnet50.benchmark import SYNTHETIC
from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.dataset import Dataset
from bench_resnet50.official import ONNX
from bench_resnet50.standins import images, synthetic
from loadgen.contracts import InputError

DEEP = ResNetConfig(layers=(3, 4, 6, 3), width=16, classes=1000, image=64)  # ResNet-50's depth


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model's, with 150 images."""
    path = tmp_path_factory.mktemp("synthetic")
    (path / "model").mkdir()
    write_config(path / "model" / FILE, DEEP)
    images.write(path / "data", 150)
    return path


def test_random_weights_tell_generated_images_apart(folder: Path, load: Callable[..., Any]) -> None:
    synthetic.prepare(folder)  # leaves data and sizes alone
    data = Dataset(folder, image=64)
    assert data.total_count == 150
    data.load(range(150))
    backend = load("onnxruntime", folder / "model", extra={"weights": SYNTHETIC.weights})
    logits = backend.submit(data.gather(np.arange(150))).result()
    assert len(set(logits.argmax(axis=1).tolist())) >= 60
    assert 0.5 < logits.std(axis=1).mean() < 10


def test_images_cost_what_imagenets_do(folder: Path) -> None:
    sizes = [file.stat().st_size for file in (folder / "data" / "val").iterdir()]
    assert 50_000 < np.mean(sizes) < 200_000  # ImageNet's: 134,000
    shapes = {cv2.imread(str(file)).shape for file in (folder / "data" / "val").iterdir()}  # type: ignore[union-attr]
    assert {(375, 500, 3), (500, 375, 3)} <= shapes


def test_more_images_begin_as_fewer_do(folder: Path, tmp_path: Path) -> None:
    images.main([str(tmp_path), "--count", "4"])
    lines = (tmp_path / "data" / "val_map.txt").read_text()
    assert (folder / "data" / "val_map.txt").read_text().startswith(lines)
    name = lines.splitlines()[3].split()[0]
    assert (tmp_path / "data" / name).read_bytes() == (folder / "data" / name).read_bytes()


def test_weights_follow_from_the_seed() -> None:
    one, same, other = (synthetic.random_tensors(DEEP, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["fc.weight"], other["fc.weight"])
    assert all(value.dtype == np.float32 for value in one.values())


def test_an_empty_folder_gets_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr(images, "write", made.append)
    synthetic.prepare(tmp_path)
    assert made == [tmp_path / "data"]
    assert not any((tmp_path / "model").iterdir()), "the sizes are those of ResNet-50, as nothing else is said"
    assert SYNTHETIC.samples == images.COUNT


def test_a_writer_that_is_not_installed_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="made with the package onnx, which is not installed"):
        synthetic.write_weights(tmp_path / ONNX)
