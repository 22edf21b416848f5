"""The miniature is a real test of accuracy: trained, scored in FP32, hurt by what hurts a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench_resnet50.accuracy import score
from bench_resnet50.backend_onnxruntime import Backend
from bench_resnet50.benchmark import BENCHMARK, MINI
from bench_resnet50.dataset import Batch, Dataset
from bench_resnet50.formats import NCNN, ONNX, PYTORCH, TENSORFLOW, write_onnx
from bench_resnet50.mini import SIZES, generate
from bench_resnet50.mini.prepare import WEIGHTS, prepare, read_weights
from bench_resnet50.mini.train import CONFIG, spread_channels
from bench_resnet50.postprocess import encode
from bench_resnet50.preprocess import crop
from loadgen.contracts import BackendOptions
from loadgen.harness.run import import_name

REFERENCE = MINI.reference["accuracy"]
TARGET = 0.99 * REFERENCE
Images = npt.NDArray[np.uint8]


def entries(backend: Any, images: Images, variant: str = "tf") -> list[tuple[int, bytes]]:
    """Every image's answer, as an accuracy log holds it."""
    backend.load()
    made = []
    for first in range(0, len(images), 16):
        buffer, _ = encode(backend.submit(Batch(images[first : first + 16], variant)).result())
        made += [(first + row, value.tobytes()) for row, value in enumerate(buffer)]
    backend.close()
    return made


@pytest.fixture(scope="module")
def images(mini_dataset: Dataset) -> Images:
    return mini_dataset.gather(range(mini_dataset.total_count)).images


@pytest.mark.parametrize("name", BENCHMARK.backends)
def test_every_backend_gives_the_stated_score(name: str, mini: Path, mini_dataset: Dataset, images: Images) -> None:
    backend = import_name(BENCHMARK.backends[name], f"backend {name}", BENCHMARK)
    made = entries(backend(BackendOptions(mini / "model", threads=1, max_batch=16)), images)
    assert score(made, mini_dataset)["accuracy"] == pytest.approx(REFERENCE, abs=0.2)


def test_the_reference_is_onnx_runtimes(mini: Path, mini_dataset: Dataset, images: Images) -> None:
    values = score(entries(Backend(BackendOptions(mini / "model", threads=1)), images), mini_dataset)
    assert values["accuracy"] == pytest.approx(REFERENCE, abs=0.05)
    assert 85 <= values["accuracy"] <= 95
    assert values["total"] == 2000


def int8(value: Any, per_channel: bool) -> Any:
    """Rounded to 8 bits and back; one scale an output channel, or one for all."""
    if value.ndim < 2:
        return value
    axes = tuple(range(1, value.ndim)) if per_channel else None
    scale = np.abs(value).max(axis=axes, keepdims=True) / 127
    return (np.round(value / scale) * scale).astype(np.float32)


def changed(change: Callable[[Any], Any], folder: Path, data: Dataset, images: Images) -> float:
    """Accuracy on ONNX Runtime with every tensor changed."""
    config, tensors = read_weights()
    write_onnx(folder / ONNX, config, {name: change(value) for name, value in tensors.items()})
    return score(entries(Backend(BackendOptions(folder, threads=1)), images), data)["accuracy"]


def test_8_bits_a_channel_meet_the_target(mini_dataset: Dataset, images: Images, tmp_path: Path) -> None:
    assert TARGET < changed(lambda value: int8(value, True), tmp_path, mini_dataset, images) < REFERENCE + 0.5


def test_8_bits_a_tensor_miss_it(mini_dataset: Dataset, images: Images, tmp_path: Path) -> None:
    assert 50 < changed(lambda value: int8(value, False), tmp_path, mini_dataset, images) < TARGET


def blue_first(images: Images) -> tuple[Images, str]:
    return images[..., ::-1], "tf"


def normalised_otherwise(images: Images) -> tuple[Images, str]:
    return images, "torch"


def moved(images: Images) -> tuple[Images, str]:
    """Each image gets the class of the one behind it."""
    return np.roll(images, -1, axis=0), "tf"


@pytest.mark.parametrize("fault", [blue_first, normalised_otherwise, moved])
def test_faults_of_the_data_show(fault: Any, mini: Path, mini_dataset: Dataset, images: Images) -> None:
    made = entries(Backend(BackendOptions(mini / "model", threads=1)), *fault(images))
    assert score(made, mini_dataset)["accuracy"] < 12


def test_the_data_is_as_stated(mini_dataset: Dataset) -> None:
    counts = np.bincount(mini_dataset.labels, minlength=SIZES["classes"])
    assert len(counts) == generate.CLASSES == SIZES["classes"]
    assert counts.min() > 70
    assert all(file.suffix == ".JPEG" for file in mini_dataset.files)


def test_an_image_follows_from_its_number_alone(mini: Path, tmp_path: Path) -> None:
    generate.write(tmp_path, count=3)
    for name in ("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000003.JPEG"):
        assert (tmp_path / "val" / name).read_bytes() == (mini / "data" / "val" / name).read_bytes()
    assert (mini / "data" / "val_map.txt").read_text().startswith((tmp_path / "val_map.txt").read_text())


def test_patterns_are_drawn_in_cold_and_warm_ink() -> None:
    for label in range(generate.CLASSES):
        many = [crop(generate.jpeg(label, np.random.default_rng([7, n])), 64, "tf").astype(float) for n in range(12)]
        middle = np.mean(many, axis=0)[24:40, 24:40].mean((0, 1)) - np.mean(many, axis=0)[:6].mean((0, 1))
        assert (middle[0] - middle[2] > 0) == bool(label % 2), generate.PATTERNS[label // 2][0]


def test_prepare_repairs_and_leaves_alone(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mini / "model"
    kept, whole = (model / PYTORCH).stat().st_mtime_ns, (model / ONNX).read_bytes()
    (model / ONNX).unlink()
    monkeypatch.setattr(generate, "write", lambda folder: pytest.fail("the data was there"))
    prepare(mini)
    assert (model / ONNX).read_bytes() == whole
    assert (model / PYTORCH).stat().st_mtime_ns == kept
    assert all((model / name).is_file() for name in (TENSORFLOW, NCNN))


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 2_000_000
    assert read_weights()[0] == CONFIG


def test_spreading_channels_changes_no_score(mini_dataset: Dataset, images: Images, tmp_path: Path) -> None:
    config, tensors = read_weights()
    again = spread_channels(tensors)
    assert np.abs(again["layer1.0.conv2.weight"]).max() > 2 * np.abs(tensors["layer1.0.conv2.weight"]).max()
    write_onnx(tmp_path / ONNX, config, again)
    made = entries(Backend(BackendOptions(tmp_path, threads=1)), images)
    assert score(made, mini_dataset)["accuracy"] == pytest.approx(REFERENCE, abs=0.05)
