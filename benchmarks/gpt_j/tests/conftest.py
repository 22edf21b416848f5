"""Files that several tests read: the miniature, written once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from bench_gpt_j.benchmark import MINI
from bench_gpt_j.dataset import Dataset
from bench_gpt_j.official import INDEX
from bench_gpt_j.standins.miniature import prepare, write_weights

os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder, with its weights."""
    folder = tmp_path_factory.mktemp("mini")
    prepare(folder)
    write_weights(folder / "model" / INDEX)
    return folder


@pytest.fixture(scope="session")
def mini_dataset(mini: Path) -> Dataset:
    return Dataset(mini, **MINI.dataset_options)
