"""What several tests read: the miniature, written once, small networks in every format, folders of a few images."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from bench_retinanet.benchmark import BENCHMARK
from bench_retinanet.config import FILE, RetinaNetConfig, write_config
from bench_retinanet.dataset import Batch, Dataset
from bench_retinanet.official import ANNOTATIONS, IMAGE_FOLDERS
from bench_retinanet.postprocess import Detections
from bench_retinanet.standins import SIZES
from bench_retinanet.standins.formats import WRITERS
from bench_retinanet.standins.miniature import prepare
from bench_retinanet.standins.synthetic import random_tensors
from loadgen.contracts import BackendOptions
from loadgen.harness.plan import import_name

Folder = Callable[..., Path]
Load = Callable[..., Any]
SMALL = RetinaNetConfig(
    layers=(1, 2, 1, 1), stem=8, inner=16, groups=4, channels=16, convolutions=1, classes=6, image=160, anchor=8
)

if importlib.util.find_spec("triton"):  # read when it is imported
    os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

torch.set_num_threads(1)  # threads that wait for each other spin, where others want the cores


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
    """Of the network SMALL, which detects some hundred boxes of every class in noise, and none in what is plain."""
    tensors = random_tensors(SMALL, 1)
    tensors["head.classification_head.cls_logits.bias"] = np.full(9 * SMALL.classes, -5.5, np.float32)
    tensors["head.classification_head.cls_logits.weight"] *= np.float32(2.2)
    return tensors


@pytest.fixture(scope="session")
def small_files(small_tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SMALL in every official format. Tests leave it as it is."""
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
    """Four images for SMALL; in the third is nothing."""
    rng = np.random.default_rng(5)
    coarse = rng.random((4, 3, 20, 20), np.float32).repeat(8, axis=2).repeat(8, axis=3)
    images = (0.7 * coarse + 0.3 * rng.random(coarse.shape, np.float32)).astype(np.float32)
    images[2] = 0.45
    return Batch(images)


@pytest.fixture
def load() -> Iterator[Load]:
    """Makes and loads a backend by its name; all are closed after the test."""
    opened = []

    def load(name: str, model: Path, **options: Any) -> Any:
        spec = BENCHMARK.backends[name]
        backend = import_name(BENCHMARK, spec.name, "the backend")(BackendOptions(model=model, **options))
        opened.append(backend)
        backend.load()
        return backend

    yield load
    for backend in opened:
        backend.close()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Writes a profile's folder with these images, [height, width, 3], as PNG files named .jpg, which lose nothing."""

    def write(images: list[npt.NDArray[np.uint8]], /, **changes: Any) -> Path:
        place = tmp_path / "data" / IMAGE_FOLDERS[0]
        place.mkdir(parents=True, exist_ok=True)
        entries = []
        for number, image in enumerate(images):
            encoded: Any = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
            (place / f"{number}.jpg").write_bytes(bytes(encoded))
            height, width, _ = image.shape
            entries.append({"id": number + 1, "file_name": f"{number}.jpg", "height": height, "width": width})
        write_document(tmp_path, {"images": entries, **changes})
        return tmp_path

    return write


def write_document(folder: Path, changes: dict[str, Any]) -> None:
    """Annotations of three categories, and one box in image 1."""
    box = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    categories = [{"id": number, "name": f"thing {number}"} for number in range(3)]
    file = folder / "data" / ANNOTATIONS
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"categories": categories, "annotations": [box], **changes}))


@pytest.fixture(scope="session")
def noise() -> Callable[[int, int], npt.NDArray[np.uint8]]:
    """Smooth random colours [height, width, 3], different each time."""
    rng = np.random.default_rng(0)

    def draw(height: int, width: int) -> npt.NDArray[np.uint8]:
        small = rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), np.uint8)
        return np.asarray(cv2.resize(small, (width, height)), np.uint8)

    return draw


@pytest.fixture(scope="session")
def split() -> Callable[[Detections], list[Detections]]:
    """Of a batch's detections each image's."""

    def split(found: Detections) -> list[Detections]:
        cuts = np.cumsum(found.counts)[:-1]
        parts = zip(*(np.split(column, cuts) for column in found[:3]), strict=True)
        return [Detections(*part, np.array([len(part[1])])) for part in parts]

    return split


@pytest.fixture(scope="session")
def small_config() -> RetinaNetConfig:
    return SMALL
