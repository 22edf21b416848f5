"""The miniature is a real test of accuracy: trained, scored in FP32, hurt by what hurts a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_resnet50 import accuracy
from bench_resnet50.batch import Batch, Pixels
from bench_resnet50.benchmark import BENCHMARK, MINI
from bench_resnet50.config import FILE, write_config
from bench_resnet50.dataset import Dataset
from bench_resnet50.official import ONNX
from bench_resnet50.postprocess import encode
from bench_resnet50.preprocess import crop
from bench_resnet50.standins import SIZES, generate
from bench_resnet50.standins.formats import write_onnx
from bench_resnet50.standins.miniature import WEIGHTS, prepare, read_weights
from bench_resnet50.standins.train import CONFIG, spread_channels
from loadgen.contracts import Entry, Scoring
from loadgen.harness.cli import invoke
from loadgen.harness.standins.making import STAMP

REFERENCE = MINI.reference["accuracy"]
TARGET = 0.99 * REFERENCE
Load = Callable[..., Any]


def score(backend: Any, data: Dataset, images: Pixels, variant: str = "tf") -> float:
    """Accuracy of what the backend answers to these images, in the data's order."""

    def entries() -> Iterator[Entry]:
        for indices in np.array_split(np.arange(len(images)), len(images) // 16):
            answers = encode(backend.submit(Batch(images[indices], variant)).result(), indices, data)
            for index, value in zip(indices.tolist(), np.asarray(answers.data), strict=True):
                yield Entry(index, value.tobytes())

    values = accuracy.score(entries(), data, Scoring(Path()))
    assert values["total"] == data.total_count
    return values["accuracy"]


@pytest.fixture(scope="module")
def images(mini_dataset: Dataset) -> Pixels:
    return mini_dataset.gather(np.arange(mini_dataset.total_count)).images


@pytest.mark.parametrize("name", BENCHMARK.backends)
def test_every_backend_gives_the_stated_score(
    name: str, mini: Path, mini_dataset: Dataset, images: Pixels, load: Load
) -> None:
    assert score(load(name, mini / "model"), mini_dataset, images) == pytest.approx(REFERENCE, abs=0.2)


def test_the_reference_is_onnx_runtimes(mini: Path, mini_dataset: Dataset, images: Pixels, load: Load) -> None:
    assert score(load("onnxruntime", mini / "model"), mini_dataset, images) == pytest.approx(REFERENCE, abs=0.05)


@pytest.fixture
def changed(mini_dataset: Dataset, images: Pixels, tmp_path: Path, load: Load) -> Callable[[Any], float]:
    """Accuracy on ONNX Runtime of other tensors, made of the miniature's."""

    def changed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> float:
        config, tensors = read_weights()
        write_onnx(tmp_path / ONNX, config, change(tensors))
        write_config(tmp_path / FILE, config)
        return score(load("onnxruntime", tmp_path), mini_dataset, images)

    return changed


def int8(value: Any, per_channel: bool) -> Any:
    """Rounded to 8 bits and back; one scale an output channel, or one for all."""
    if value.ndim < 2:
        return value
    axes = tuple(range(1, value.ndim)) if per_channel else None
    scale = np.abs(value).max(axis=axes, keepdims=True) / 127
    return (np.round(value / scale) * scale).astype(np.float32)


def test_8_bits_a_channel_meet_the_target(changed: Callable[[Any], float]) -> None:
    assert TARGET < changed(lambda tensors: {n: int8(v, True) for n, v in tensors.items()}) < REFERENCE + 0.5


def test_8_bits_a_tensor_miss_it(changed: Callable[[Any], float]) -> None:
    assert 50 < changed(lambda tensors: {n: int8(v, False) for n, v in tensors.items()}) < TARGET


def blue_first(images: Pixels) -> tuple[Pixels, str]:
    return images[..., ::-1], "tf"


def normalised_otherwise(images: Pixels) -> tuple[Pixels, str]:
    return images, "torch"


def moved(images: Pixels) -> tuple[Pixels, str]:
    """Each image gets the class of the one behind it."""
    return np.roll(images, -1, axis=0), "tf"


@pytest.mark.parametrize("fault", [blue_first, normalised_otherwise, moved])
def test_faults_of_the_data_show(fault: Any, mini: Path, mini_dataset: Dataset, images: Pixels, load: Load) -> None:
    assert score(load("onnxruntime", mini / "model"), mini_dataset, *fault(images)) < 12


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


def test_prepare_makes_the_data_once_and_leaves_weights_alone(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "write", lambda folder: pytest.fail("the data was there"))
    (mini / "model" / "kept").touch()
    prepare(mini)
    assert (mini / "model" / "kept").is_file()


def test_another_version_takes_the_old_weights_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "write", lambda folder: None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ONNX).touch()
    (tmp_path / STAMP).write_text("another version")
    prepare(tmp_path)
    assert [file.name for file in (tmp_path / "model").iterdir()] == [FILE]


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 2_000_000
    assert read_weights()[0] == CONFIG


def test_spreading_channels_changes_no_score(changed: Callable[[Any], float]) -> None:
    again, tensors = spread_channels(read_weights()[1]), read_weights()[1]
    assert np.abs(again["layer1.0.conv2.weight"]).max() > 2 * np.abs(tensors["layer1.0.conv2.weight"]).max()
    assert changed(spread_channels) == pytest.approx(REFERENCE, abs=0.05)


def test_the_miniature_can_be_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ["--images", "128", "--steps", "2", "--workers", "1", "--device", "cpu"]
    assert invoke(BENCHMARK, ["train-mini", "--output", str(tmp_path / "w.npz"), *few]) == 0
    assert "standins/weights.npz is the file that the miniature uses" in capfd.readouterr().out
    with np.load(tmp_path / "w.npz") as made, np.load(WEIGHTS) as committed:
        assert {name: made[name].shape for name in made} == {name: committed[name].shape for name in committed}
