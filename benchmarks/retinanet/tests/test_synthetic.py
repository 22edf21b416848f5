"""The synthetic profile: full-size weights from a seed, and images of OpenImages' size."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bench_retinanet.benchmark import SYNTHETIC
from bench_retinanet.config import RetinaNetConfig, weight_shapes
from bench_retinanet.dataset import Dataset
from bench_retinanet.official import ANNOTATIONS, IMAGE_FOLDERS, ONNX, PYTORCH
from bench_retinanet.postprocess import THRESHOLD
from bench_retinanet.standins import images, synthetic
from loadgen.contracts import InputError

Load = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full-size model's, with 6 images."""
    path = tmp_path_factory.mktemp("synthetic")
    (path / "model").mkdir()
    images.write(path / "data", 6)
    synthetic.prepare(path)  # leaves data and sizes alone
    return path


def test_the_full_size_model_detects_in_plausible_numbers(folder: Path, load: Load) -> None:
    """Both official files, one image each: 400 GFLOP."""
    data = Dataset(folder)
    data.load([3, 4])
    counts = {}
    for name, sample in (("pytorch", 3), ("onnxruntime", 4)):
        backend = load(name, folder / "model", extra={"weights": SYNTHETIC.weights})
        found = backend.submit(data.gather(np.array([sample]))).result()
        counts[name] = len(found.scores)
        assert found.scores.min() > THRESHOLD
        assert len(set(found.labels.tolist())) > 3
        backend.close()
    sizes = [(folder / "model" / name).stat().st_size for name in (ONNX, PYTORCH)]
    assert all(148e6 < size < 155e6 for size in sizes), "37.2 million values"
    assert all(10 <= count <= 300 for count in counts.values()), counts


def test_images_cost_what_openimages_do(folder: Path, tmp_path: Path) -> None:
    files = sorted((folder / "data" / IMAGE_FOLDERS[0]).iterdir())
    assert 100_000 < np.mean([file.stat().st_size for file in files]) < 500_000  # OpenImages': about 300,000
    pixels = [cv2.imread(str(file)) for file in files]
    assert all(image is not None and max(image.shape) == 1024 for image in pixels)
    assert all(40 < image.std() < 65 for image in pixels if image is not None), "all of one contrast"
    known = Dataset(folder).annotations
    assert len(known.categories) == 264
    assert len(known.boxes) > 12


def test_more_images_begin_as_fewer_do(folder: Path, tmp_path: Path) -> None:
    images.main([str(tmp_path), "--count", "2"])
    name = f"{IMAGE_FOLDERS[0]}/{1:016x}.jpg"
    assert (tmp_path / "data" / name).read_bytes() == (folder / "data" / name).read_bytes()
    fewer, more = (Dataset(place).annotations for place in (tmp_path, folder))
    assert more.boxes[: len(fewer.boxes)] == fewer.boxes


def test_weights_follow_from_the_seed() -> None:
    config = RetinaNetConfig(layers=(1, 1, 1, 1), stem=8, inner=16, groups=4, channels=16, convolutions=1, classes=6)
    one, same, other = (synthetic.random_tensors(config, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["backbone.body.conv1.weight"], other["backbone.body.conv1.weight"])
    assert {name: value.shape for name, value in one.items()} == weight_shapes(config)
    assert all(value.dtype == np.float32 for value in one.values())


def test_an_empty_folder_gets_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr(images, "write", made.append)
    synthetic.prepare(tmp_path)
    assert made == [tmp_path / "data"]
    assert not any((tmp_path / "model").iterdir()), "the sizes are the benchmark's, as nothing else is said"
    assert SYNTHETIC.samples == images.COUNT
    assert not (tmp_path / "data" / ANNOTATIONS).exists()


def test_a_writer_that_is_not_installed_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="made with the package onnx, which is not installed"):
        synthetic.write_weights(tmp_path / ONNX)
