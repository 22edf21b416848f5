"""The miniature's score is the stated one on every backend, and the usual mistakes miss its target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_3d_unet import accuracy, preprocess, sliding_window
from bench_3d_unet.accuracy import dice
from bench_3d_unet.backend_onnxruntime import Backend
from bench_3d_unet.benchmark import BENCHMARK, MINI
from bench_3d_unet.config import FILE, write_config
from bench_3d_unet.dataset import Batch, Dataset
from bench_3d_unet.kits import read_scan
from bench_3d_unet.official import CHECKPOINT, ONNX
from bench_3d_unet.postprocess import encode
from bench_3d_unet.preprocess import Volume
from bench_3d_unet.standins import CASES, WINDOW, generate
from bench_3d_unet.standins.formats import write_onnx
from bench_3d_unet.standins.miniature import WEIGHTS, prepare, read_weights
from bench_3d_unet.standins.train import CONFIG, spread_channels
from loadgen.contracts import BackendOptions, Entry, InputError, Scoring
from loadgen.harness.cli import invoke

REFERENCE = MINI.reference["mean"]
SOME = range(8)
"""Cases on which mistakes are shown: half of them."""
Load = Callable[..., Any]


def labels_of(backend: Any, volumes: list[Volume]) -> Any:
    return backend.submit(Batch([volume.image[0] for volume in volumes])).result()


def score(labels: Any, volumes: list[Volume]) -> Any:
    """[2]: mean Dice of kidney and of tumour."""
    return np.mean([dice(found, volume.label[0]) for found, volume in zip(labels, volumes, strict=True)], axis=0)


@pytest.fixture(scope="module")
def volumes(mini_dataset: Dataset) -> list[Volume]:
    batch = mini_dataset.gather(np.array(SOME))
    return [
        Volume(image[None], mini_dataset.label(index)[None]) for index, image in zip(SOME, batch.volumes, strict=True)
    ]


@pytest.fixture(scope="module")
def right(mini: Path, volumes: list[Volume]) -> float:
    """What the model scores on SOME without a mistake."""
    backend = Backend(BackendOptions(mini / "model", threads=1, extra={"weights": MINI.weights}))
    backend.load()
    return float(score(labels_of(backend, volumes), volumes).mean())


def test_the_stated_score(mini: Path, mini_dataset: Dataset, load: Load) -> None:
    backend = load("onnxruntime", mini / "model")

    def entries() -> Iterator[Entry]:
        for index in range(mini_dataset.total_count):
            one = np.array([index])
            answers = encode(backend.submit(mini_dataset.gather(one)).result(), one, mini_dataset)
            yield Entry(index, bytes(answers.data))

    values = accuracy.score(entries(), mini_dataset, Scoring(mini))
    assert values["mean"] == pytest.approx(REFERENCE, abs=0.0005)
    assert values["kidney"] == pytest.approx(0.928, abs=0.001)
    assert values["tumor"] == pytest.approx(0.922, abs=0.001)
    assert 0.80 < values["mean"] < 0.95


@pytest.mark.parametrize(
    ("name", "dtype"), [("pytorch", "float32"), ("tensorflow", "float32"), ("pytorch", "bfloat16")]
)
def test_other_backends_agree(
    name: str, dtype: str, mini: Path, volumes: list[Volume], right: float, load: Load
) -> None:
    found = score(labels_of(load(name, mini / "model", dtype=dtype), volumes), volumes)
    assert found.mean() == pytest.approx(right, abs=0.001)


def rounded(value: Any, bits: int) -> Any:
    """To so many bits and back, one scale an output channel."""
    if value.ndim < 5:
        return value
    axes = (0, 2, 3, 4) if value.shape[2:] == (2, 2, 2) else (1, 2, 3, 4)  # transposed kernels begin with inputs
    scale = np.abs(value).max(axis=axes, keepdims=True) / (2 ** (bits - 1) - 1)
    return (np.round(value / scale) * scale).astype(np.float32)


@pytest.mark.parametrize(("bits", "lowest", "highest"), [(8, 0.995, 1.005), (4, 0.4, 0.9)])
def test_8_bits_meet_the_target_and_4_miss_it(
    bits: int, lowest: float, highest: float, volumes: list[Volume], right: float, tmp_path: Path, load: Load
) -> None:
    config, tensors = read_weights()
    write_onnx(tmp_path / ONNX, config, {name: rounded(value, bits) for name, value in tensors.items()})
    write_config(tmp_path / FILE, config)
    share = score(labels_of(load("onnxruntime", tmp_path), volumes), volumes).mean() / right
    assert lowest < share < highest


def turned(scan: Any) -> Volume:
    """The spacing in the order columns, rows, slices."""
    return preprocess.preprocess(scan.image, scan.label, scan.spacing[::-1], WINDOW)


def not_resampled(scan: Any) -> Volume:
    return preprocess.fitted(preprocess.normalised(scan.image), scan.label, WINDOW)


def not_clipped(scan: Any) -> Volume:
    image, label = (preprocess.resampled(part, scan.spacing, n) for part, n in ((scan.image, 1), (scan.label, 0)))
    return preprocess.fitted(((image - preprocess.MEAN) / preprocess.DEVIATION).astype(np.float32), label, WINDOW)


def shifted(scan: Any) -> Volume:
    """The image cut and filled at its end alone, the label on both sides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess, "_halved", lambda total: (0, total))
        image = preprocess.preprocess(scan.image, scan.label, scan.spacing, WINDOW).image
    return Volume(image, preprocess.preprocess(scan.image, scan.label, scan.spacing, WINDOW).label)


@pytest.mark.parametrize(("fault", "share"), [(turned, 0.5), (not_resampled, 0.8), (not_clipped, 0.6), (shifted, 0.75)])
def test_mistakes_of_preprocessing_miss_the_target(
    fault: Callable[[Any], Volume], share: float, mini: Path, right: float, load: Load
) -> None:
    scans = [read_scan(mini / "data" / "raw" / CASES[index]) for index in SOME[:4]]
    wrong = [fault(scan) for scan in scans]
    assert score(labels_of(load("onnxruntime", mini / "model"), wrong), wrong).mean() < share * right


def side_by_side(volume: Any, predict: Any) -> Any:
    """Windows that do not overlap, but for the last ones, which would lie outside; each voxel from the last alone."""
    labels = np.zeros(volume.shape, np.uint8)
    starts = [sorted({min(at, side - WINDOW) for at in range(0, side, WINDOW)}) for side in volume.shape]
    for z, y, x in np.array(np.meshgrid(*starts)).reshape(3, -1).T.tolist():
        place = np.s_[z : z + WINDOW, y : y + WINDOW, x : x + WINDOW]
        labels[place] = predict(volume[place][None, None])[0].argmax(0)
    return labels


def test_windows_without_overlap_miss_the_target(mini: Path, volumes: list[Volume], right: float, load: Load) -> None:
    backend = load("onnxruntime", mini / "model")
    labels = [side_by_side(volume.image[0], backend.predict) for volume in volumes]
    assert 0.9 < score(labels, volumes).mean() / right < 0.99


def test_a_step_too_long_misses_the_target(
    mini: Path, volumes: list[Volume], right: float, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole window: some voxels are never seen, and become background."""
    whole = sliding_window.places

    def every_second(shape: Any, window: int) -> Any:
        return (place for place in whole(shape, window) if all(one.start % window == 0 for one in place))

    monkeypatch.setattr(sliding_window, "places", every_second)
    labels = labels_of(load("onnxruntime", mini / "model"), volumes)
    assert score(labels, volumes).mean() < 0.9 * right


def test_a_phantom_follows_from_its_number_alone(mini: Path, tmp_path: Path) -> None:
    generate.write(tmp_path, cases=CASES[:2])
    for case in CASES[:2]:
        for file in (tmp_path / case).iterdir():
            assert file.read_bytes() == (mini / "data" / "raw" / case / file.name).read_bytes()


def test_phantoms_are_as_stated(mini_dataset: Dataset) -> None:
    labels = [mini_dataset.label(index) for index in range(len(CASES))]
    kidney, tumor = (np.array([(one == kind).sum() for one in labels]) for kind in (1, 2))
    assert kidney.min() > 1500
    assert ((tumor == 0).sum(), (tumor > 500).sum()) == (3, 13)
    windows = mini_dataset.costs(np.arange(len(CASES)))
    assert (windows.min(), windows.max(), windows.sum()) == (12, 27, 243)


def test_prepare_makes_the_data_once_and_leaves_weights_alone(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "write", lambda folder: pytest.fail("the data was there"))
    (mini / "model" / "kept").touch()
    prepare(mini)
    assert (mini / "model" / "kept").is_file()


def test_official_weights_are_not_overwritten(tmp_path: Path) -> None:
    """A folder with official files, named by mistake."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / CHECKPOINT).write_text("weights")
    with pytest.raises(InputError, match=r"checkpoint\.pth was not made by this profile, which would replace it"):
        prepare(tmp_path)
    assert (tmp_path / "model" / CHECKPOINT).read_text() == "weights"


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 2_000_000
    assert read_weights()[0] == CONFIG


def test_spreading_channels_changes_no_label(mini: Path, volumes: list[Volume], tmp_path: Path, load: Load) -> None:
    config, tensors = read_weights()
    again = spread_channels(tensors)
    assert np.abs(again["bottleneck.conv2.0.weight"]).max() > 1.5 * np.abs(tensors["bottleneck.conv2.0.weight"]).max()
    write_onnx(tmp_path / ONNX, config, again)
    write_config(tmp_path / FILE, config)
    some = volumes[:2]
    for ours, theirs in zip(
        labels_of(load("onnxruntime", tmp_path), some),
        labels_of(load("onnxruntime", mini / "model"), some),
        strict=True,
    ):
        assert np.mean(ours != theirs) < 1e-4


def test_the_miniature_can_be_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = [
        "--volumes",
        "3",
        "--steps",
        "2",
        "--batch",
        "2",
        "--workers",
        "1",
        "--device",
        "cpu",
        "--filters",
        "4",
        "4",
        "4",
    ]
    assert invoke(BENCHMARK, ["train-mini", "--output", str(tmp_path / "w.npz"), *few]) == 0
    said = capfd.readouterr().out
    assert "Dice of the miniature's cases: kidney 0." in said
    assert "standins/weights.npz is the file that the miniature uses" in said
    with np.load(tmp_path / "w.npz") as made:
        assert made["bottleneck.conv1.0.weight"].shape == (4, 4, 3, 3, 3)
