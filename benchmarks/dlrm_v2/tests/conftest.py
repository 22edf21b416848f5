"""What several tests read: the miniature, written once, and what `make_golden.py` drew and recorded."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench_dlrm_v2.dataset import Dataset
from bench_dlrm_v2.standins.miniature import prepare

HERE = Path(__file__).parent

if importlib.util.find_spec("triton"):
    os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder."""
    folder = tmp_path_factory.mktemp("mini")
    prepare(folder)
    return folder


@pytest.fixture(scope="session")
def mini_dataset(mini: Path) -> Dataset:
    """All of its samples, loaded."""
    data = Dataset(mini)
    data.load(range(data.total_count))
    return data


@pytest.fixture(scope="session")
def made() -> Any:
    """The functions and sizes of `make_golden.py`."""
    return SimpleNamespace(**runpy.run_path(str(HERE / "make_golden.py")))


@pytest.fixture(scope="session")
def golden() -> Any:
    """Name of a file in `golden/` -> its content."""
    return {file.stem: json.loads(file.read_text()) for file in (HERE / "golden").glob("*.json")}
