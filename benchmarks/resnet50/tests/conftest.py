"""Files that several tests read: the miniature, written once, and folders of a few images."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from bench_resnet50.dataset import Dataset
from bench_resnet50.mini import SIZES
from bench_resnet50.mini.prepare import prepare

Folder = Callable[..., Path]

if importlib.util.find_spec("triton"):  # PyTorch imports it too, but after TensorFlow its copy of LLVM aborts
    importlib.import_module("triton")


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder."""
    folder = tmp_path_factory.mktemp("mini")
    prepare(folder)
    return folder


@pytest.fixture(scope="session")
def mini_dataset(mini: Path) -> Dataset:
    """All of its images, loaded."""
    data = Dataset(mini / "data", **SIZES)
    data.load(range(data.total_count))
    return data


@pytest.fixture
def image_folder(tmp_path: Path) -> Folder:
    """Writes images [height, width, 3] (red, green, blue) as JPEG files, image i of class i, and `val_map.txt`."""

    def write(*images: npt.NDArray[np.uint8], name: str = "data") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number, image in enumerate(images):
            assert cv2.imwrite(str(folder / f"{number}.JPEG"), image[..., ::-1])
        (folder / "val_map.txt").write_text("".join(f"{n}.JPEG {n}\n" for n in range(len(images))))
        return folder

    return write


@pytest.fixture(scope="session")
def noise() -> Callable[[int, int], npt.NDArray[np.uint8]]:
    """Smooth random colours [height, width, 3], different each time."""
    rng = np.random.default_rng(0)

    def draw(height: int, width: int) -> npt.NDArray[np.uint8]:
        small = rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), np.uint8)
        return np.asarray(cv2.resize(small, (width, height)), np.uint8)

    return draw
