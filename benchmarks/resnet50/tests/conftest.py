"""What several tests read: the miniature, written once, small networks in every format, folders of a few images."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from bench_resnet50.batch import Batch
from bench_resnet50.benchmark import BENCHMARK, MINI
from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.dataset import Dataset
from bench_resnet50.standins import SIZES
from bench_resnet50.standins.formats import WRITERS
from bench_resnet50.standins.miniature import prepare
from bench_resnet50.standins.synthetic import random_tensors
from loadgen.contracts import BackendOptions
from loadgen.harness.plan import import_name

Folder = Callable[..., Path]
SMALL = ResNetConfig(layers=(2, 1), width=8, classes=10, image=36)

if importlib.util.find_spec("triton"):
    os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")
    importlib.import_module("triton")  # PyTorch imports it too, but after TensorFlow its copy of LLVM aborts


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder."""
    folder = tmp_path_factory.mktemp("mini")
    prepare(folder)
    return folder


@pytest.fixture(scope="session")
def mini_dataset(mini: Path) -> Dataset:
    """All of its images, loaded."""
    data = Dataset(mini, **SIZES)
    data.load(range(data.total_count))
    return data


@pytest.fixture(scope="session")
def small_tensors() -> dict[str, Any]:
    """Of the network SMALL, batch normalisation far off its starting values too."""
    rng = np.random.default_rng(3)
    started = random_tensors(SMALL, 1)
    return {name: value * np.exp(rng.normal(0, 0.2, value.shape)).astype(np.float32) for name, value in started.items()}


@pytest.fixture(scope="session")
def small_files(small_tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SMALL in every official format; TVM keeps its library there. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("small")
    write_config(folder / FILE, SMALL)
    for name, writer in WRITERS.items():
        writer.write(folder / name, SMALL, small_tensors)
    return folder


@pytest.fixture
def small(small_files: Path, tmp_path: Path) -> Path:
    """Its copy, to be changed."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in small_files.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def small_batch() -> Batch:
    return Batch(np.random.default_rng(2).integers(0, 256, (5, SMALL.image, SMALL.image, 3)).astype(np.uint8))


@pytest.fixture
def load() -> Iterator[Callable[..., Any]]:
    """`load(name, model folder, ...)` gives a backend, loaded; more words are fields of its options."""
    loaded = []

    def load(name: str, model: Path, **options: Any) -> Any:
        spec = BENCHMARK.backends[name]
        build = import_name(BENCHMARK, spec.name, f"backend {name}", spec.extra)
        weights = {"weights": MINI.weights} if model.parent.name.startswith("mini") else {}
        extra = weights | options.pop("extra", {})
        backend = build(BackendOptions(model, **{"threads": 1, "max_batch": 16, **options}, extra=extra))
        loaded.append(backend)
        backend.load()
        return backend

    yield load
    for backend in loaded:
        backend.close()


@pytest.fixture
def image_folder(tmp_path: Path) -> Folder:
    """Writes images [height, width, 3] (red, green, blue) as JPEG files, image i of class i, and `val_map.txt`."""

    def write(*images: npt.NDArray[np.uint8]) -> Path:
        data = tmp_path / "data"
        data.mkdir()
        for number, image in enumerate(images):
            assert cv2.imwrite(str(data / f"{number}.JPEG"), image[..., ::-1])
        (data / "val_map.txt").write_text("".join(f"{n}.JPEG {n}\n" for n in range(len(images))))
        return tmp_path

    return write


@pytest.fixture(scope="session")
def noise() -> Callable[[int, int], npt.NDArray[np.uint8]]:
    """Smooth random colours [height, width, 3], different each time."""
    rng = np.random.default_rng(0)

    def draw(height: int, width: int) -> npt.NDArray[np.uint8]:
        small = rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), np.uint8)
        return np.asarray(cv2.resize(small, (width, height)), np.uint8)

    return draw
