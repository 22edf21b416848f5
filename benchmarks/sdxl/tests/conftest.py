"""What several tests read: the miniature, written once, and its backend."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bench_sdxl.accuracy import score
from bench_sdxl.benchmark import BENCHMARK, MINI
from bench_sdxl.dataset import Batch, Dataset
from bench_sdxl.postprocess import encode
from bench_sdxl.pytorch.backend import Backend
from bench_sdxl.standins import SIZES
from bench_sdxl.standins.miniature import prepare
from loadgen.contracts import BackendOptions, Entry, Scoring
from loadgen.rules import Accuracy, load_round

if importlib.util.find_spec("triton"):
    os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

Images = npt.NDArray[np.uint8]
Scored = Callable[[Images], dict[str, float]]
REFERENCE = MINI.reference
LIMITS: Any = load_round("v4.0").model(BENCHMARK.model).limits(0.99, REFERENCE)


def met(values: dict[str, float]) -> bool:
    return Accuracy(values, LIMITS, 0.99).met


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("mini")
    prepare(folder)
    return folder


@pytest.fixture(scope="session")
def dataset(mini: Path) -> Dataset:
    return Dataset(mini, **SIZES)


@pytest.fixture(scope="session")
def backend(mini: Path) -> Iterator[Backend]:
    """In float32."""
    made = Backend(BackendOptions(mini / "model", threads=1))
    made.load()
    yield made
    made.close()


@pytest.fixture(scope="session")
def batch(dataset: Dataset) -> Batch:
    """All samples."""
    return dataset.gather(np.arange(dataset.total_count))


@pytest.fixture(scope="session")
def denoised(backend: Backend, batch: Batch) -> tuple[Images, torch.Tensor]:
    """Images of all samples, as the backend makes them, and the latents that they were painted from."""
    latents, paint = [], backend.pipeline.paint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend.pipeline, "paint", lambda part: latents.append(part) or paint(part))
        images = made(backend, batch)
    return images, torch.cat(latents)


@pytest.fixture(scope="session")
def images(denoised: tuple[Images, torch.Tensor]) -> Images:
    """Of all samples."""
    return denoised[0]


def made(backend: Any, batch: Batch, size: int = 40) -> Images:
    """What a backend makes of a batch, so many at a time."""
    parts = [
        Batch(batch.ids[at : at + size], batch.ids_2[at : at + size], batch.latents)
        for at in range(0, len(batch.ids), size)
    ]
    return np.concatenate([backend.submit(part).result() for part in parts])


@pytest.fixture(scope="session")
def scored(mini: Path, dataset: Dataset) -> Scored:
    """`scored(images)`: both scores, of images in the data's order."""

    def scored(images: Images) -> dict[str, float]:
        answers = encode(images, np.arange(len(images)), dataset)
        rows = np.asarray(answers.data)
        entries = (Entry(index, rows[index].tobytes()) for index in range(len(rows)))
        return score(entries, dataset, Scoring(mini))

    return scored


def randomised(network: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    """Its state dict, every tensor drawn: biases and norms too, so that none can be left out unseen."""
    draw = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            scale = 0.3 if value.dim() < 2 else 1.2 * value[0].numel() ** -0.5
            value.copy_(torch.randn(value.shape, generator=draw) * scale + float("norm" in name and "weight" in name))
    return dict(state)
