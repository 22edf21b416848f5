"""What several tests read: the miniature, written once, and small networks in every format."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_3d_unet.benchmark import BENCHMARK, MINI
from bench_3d_unet.config import FILE, UNetConfig, write_config
from bench_3d_unet.dataset import Dataset
from bench_3d_unet.official import CHECKPOINT, ONNX, ONNX_ONE, SAVED_MODEL, TORCHSCRIPT
from bench_3d_unet.standins import CASES
from bench_3d_unet.standins.formats import WRITERS
from bench_3d_unet.standins.miniature import prepare
from bench_3d_unet.standins.synthetic import random_tensors
from loadgen.contracts import BackendOptions
from loadgen.harness.plan import import_name

Load = Callable[..., Any]
SMALL = UNetConfig(filters=(4, 6, 8, 10), window=16)


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder."""
    folder = tmp_path_factory.mktemp("mini")
    prepare(folder)
    return folder


@pytest.fixture(scope="session")
def mini_dataset(mini: Path) -> Dataset:
    """All of its volumes, loaded."""
    data = Dataset(mini, cases=CASES)
    data.load(range(data.total_count))
    return data


@pytest.fixture(scope="session")
def small_tensors() -> dict[str, Any]:
    """Of the network SMALL."""
    return dict(random_tensors(SMALL, 1))


@pytest.fixture(scope="session")
def small_files(small_tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SMALL in every official format whose framework is installed, each file in its place. Tests leave them as they
    are."""
    folder = tmp_path_factory.mktemp("small")
    write_config(folder / FILE, SMALL)
    for name in (ONNX, ONNX_ONE, CHECKPOINT, TORCHSCRIPT, SAVED_MODEL):
        if name == SAVED_MODEL and not importlib.util.find_spec("tensorflow"):
            continue  # a machine with a GPU, where PyTorch is tested
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        WRITERS[file.name].write(file, SMALL, small_tensors)
    return folder


@pytest.fixture
def small(small_files: Path, tmp_path: Path) -> Path:
    """Their copy, to be changed."""
    return Path(shutil.copytree(small_files, tmp_path / "model"))


@pytest.fixture(scope="session")
def small_volumes() -> list[Any]:
    """Of 1, 2 and 6 windows of SMALL."""
    rng = np.random.default_rng(2)
    return [rng.standard_normal(shape, np.float32) for shape in ((16, 16, 16), (16, 24, 16), (24, 16, 32))]


@pytest.fixture
def load() -> Iterator[Load]:
    """`load(name, model folder, ...)` gives a backend, loaded; more words are fields of its options."""
    loaded = []

    def load(name: str, model: Path, **options: Any) -> Any:
        spec = BENCHMARK.backends[name]
        build = import_name(BENCHMARK, spec.name, f"backend {name}", spec.extra)
        extra = {"weights": MINI.weights} if model.parent.name.startswith("mini") else {}
        backend = build(BackendOptions(model, **{"threads": 1, "max_batch": 4, **options}, extra=extra))
        loaded.append(backend)
        backend.load()
        return backend

    yield load
    for backend in loaded:
        backend.close()
