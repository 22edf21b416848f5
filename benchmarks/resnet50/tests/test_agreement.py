"""The command that compares backends: `speed/agreement.py`."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.official import PYTORCH
from bench_resnet50.standins import images
from bench_resnet50.standins.formats import write_pytorch
from bench_resnet50.standins.synthetic import random_tensors

SCRIPT = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "speed" / "agreement.py")))
CONFIG = ResNetConfig(layers=(1, 1), width=8, classes=50, image=64)
PAIR = ["--backend", "onnxruntime", "--backend", "pytorch", "--threads", "1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The synthetic profile's, of a small network and 20 images."""
    (tmp_path / "model").mkdir()
    write_config(tmp_path / "model" / FILE, CONFIG)
    images.write(tmp_path / "data", 20)
    return tmp_path


def test_it_says_how_far_backends_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert SCRIPT.main([str(folder), "--images", "19", *PAIR]) == 0
    printed = capsys.readouterr().out
    assert "pytorch: 19 images in " in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("onnxruntime, pytorch")]
    apart, least, differ = line.split()[2:]
    assert 0 < float(apart) < 1e-4 < float(least)
    assert differ == "0"


def test_it_fails_where_classes_differ(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pytorch(folder / "model" / PYTORCH, CONFIG, random_tensors(CONFIG, 2))
    assert SCRIPT.main([str(folder), *PAIR]) == 1
    assert int(capsys.readouterr().out.splitlines()[-1].split()[-1]) > 0


def test_a_constant_added_to_a_row_is_no_difference() -> None:
    logits = np.array([[1, 2, 4], [8, 4, 1]], np.float32)
    assert SCRIPT.difference(logits, logits + np.array([[64], [-2]], np.float32)) == 0
    assert SCRIPT.margin(logits) == 2
