"""The synthetic profile: the full model, and volumes of KiTS19's sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_3d_unet.benchmark import BENCHMARK, GFLOP
from bench_3d_unet.config import FILE, UNetConfig, read_config, weight_shapes, write_config
from bench_3d_unet.dataset import Dataset
from bench_3d_unet.official import CASES, COPIED, COPY, SAVED_MODEL
from bench_3d_unet.sliding_window import count
from bench_3d_unet.standins import synthetic
from bench_3d_unet.standins.formats import WRITERS
from bench_3d_unet.standins.synthetic import SIDES, magnified, prepare, random_tensors, write_weights
from loadgen.contracts import InputError


def test_sizes_are_kits19s() -> None:
    """2,761 windows in 43 volumes, and case 400 is case 185."""
    windows = [count(sides, 128) for sides in SIDES]
    assert (len(windows), sum(windows), min(windows), max(windows)) == (43, 2761, 8, 144)
    assert SIDES[CASES.index(COPIED)] == SIDES[CASES.index(COPY)]
    assert all(side % 64 == 0 for sides in SIDES for side in sides)


def test_operations_are_counted() -> None:
    """Of convolutions, two for each weight and voxel that it is applied to, by a trace of the model itself."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from bench_3d_unet.model import UNet

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UNet(UNetConfig())(torch.zeros(1, 1, 128, 128, 128))
    assert counter.get_total_flops() / 1e9 * 2761 / 43 == pytest.approx(GFLOP, rel=1e-4)


def test_a_magnified_phantom_is_as_large_as_wanted() -> None:
    volume = magnified(1, (128, 128, 192))
    assert volume.image.shape == volume.label.shape == (1, 128, 128, 192)
    assert (volume.image.dtype, volume.label.dtype) == (np.float32, np.uint8)
    assert volume.image.min() >= np.float32(-180 / 76.9)
    assert np.unique(volume.label).tolist() == [0, 1, 2]
    again = magnified(1, (128, 128, 192))
    assert (again.image == volume.image).all(), "it follows from its number"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A profile's folder for three of the volumes."""
    monkeypatch.setattr(synthetic, "SIDES", ((128, 128, 128), (128, 192, 128), (128, 128, 192)))
    monkeypatch.setattr(synthetic, "CASES", CASES[:3])
    return tmp_path


def test_volumes_are_written_once_as_the_references(few: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    prepare(few)
    assert "3 volumes, 0.0 GB" in capfd.readouterr().err
    assert read_config(few / "model" / FILE) == UNetConfig()
    data = Dataset(few, cases=CASES[:3])
    data.load(range(3))
    assert data.costs(np.arange(3)).tolist() == [1, 2, 2]
    assert data.label(1).shape == data.shape(1) == (128, 192, 128)
    monkeypatch.setattr(synthetic, "magnified", lambda *_: pytest.fail("the volumes were there"))
    prepare(few)


def test_volumes_that_take_minutes_say_how_far_they_are(few: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(synthetic, "_SMALL", 0)
    monkeypatch.setattr(synthetic, "spread", lambda make, jobs, memory: (make(*job) for job in jobs))
    prepare(few)
    said = capfd.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in said if " volumes, " in line][1:] == [
        f"  {n} of 3 volumes" for n in (1, 2, 3)
    ]


@pytest.mark.parametrize("spec", BENCHMARK.backends.values(), ids=BENCHMARK.backends)
def test_weights_are_made_for_the_sizes_beside_them(spec: Any, tmp_path: Path, capfd: Any, load: Any) -> None:
    model = tmp_path / "model"
    (model / SAVED_MODEL).parent.mkdir(parents=True)
    write_config(model / FILE, UNetConfig((4, 6, 8, 10), 16))
    write_weights(model / spec.file)
    assert "random weights from seed 1, 0.00 GB" in capfd.readouterr().err
    name = next(name for name, one in BENCHMARK.backends.items() if one is spec)
    windows = np.random.default_rng(0).standard_normal((2, 1, 16, 16, 16), np.float32)
    logits = load(name, model).predict(windows)
    assert logits.shape == (2, 3, 16, 16, 16)
    assert 0.1 < logits.std() < 10


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"w\.onnx is not a weights file of this benchmark: choose 3dunet_kits19"):
        write_weights(tmp_path / "w.onnx")


def test_random_weights_follow_from_the_seed() -> None:
    config = UNetConfig((4, 6, 8), 8)
    first, again, other = (random_tensors(config, seed) for seed in (1, 1, 2))
    assert {name: value.shape for name, value in first.items()} == weight_shapes(config)
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["input_block.conv1.0.weight"] != other["input_block.conv1.0.weight"]).all()
    assert len(WRITERS) == 5
