"""The miniature is a real test of accuracy: trained, scored in FP32, hurt by what hurts a model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_rnnt.accuracy import score
from bench_rnnt.benchmark import BENCHMARK, MINI
from bench_rnnt.dataset import Dataset
from bench_rnnt.official import CHECKPOINT, MANIFEST
from bench_rnnt.postprocess import encode
from bench_rnnt.pytorch import decoding, features
from bench_rnnt.pytorch.backend import Backend
from bench_rnnt.standins.formats import write_checkpoint
from bench_rnnt.standins.miniature import WEIGHTS, prepare, read_weights
from loadgen.contracts import BackendOptions, Entry, Scoring
from loadgen.harness.cli import invoke

ACCURACY = MINI.reference["accuracy"]
TARGET = 0.99 * ACCURACY
Tensors = dict[str, Any]
Scorer = Callable[..., float]


@pytest.fixture(scope="module")
def accuracy(mini: Path, mini_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """(changed tensors, number format) -> the accuracy of a whole run."""

    def run(tensors: Tensors | None = None, dtype: str = "float32") -> float:
        model = mini / "model"
        if tensors is not None:
            model = tmp_path_factory.mktemp("model")
            write_checkpoint(model / CHECKPOINT, tensors)
        backend = Backend(BackendOptions(model, threads=1, dtype=dtype))
        backend.load()
        order = np.argsort(mini_dataset.costs(np.arange(mini_dataset.total_count)), kind="stable")
        entries: list[Entry] = []
        for indices in np.split(order, range(64, len(order), 64)):
            answers: Any = encode(backend.submit(mini_dataset.gather(indices)).result(), indices, mini_dataset)
            raw = answers.data.tobytes()
            cuts = pairwise(answers.offsets)
            entries += [Entry(i, raw[a:b]) for i, (a, b) in zip(indices.tolist(), cuts, strict=True)]
        backend.close()
        return score(entries, mini_dataset, Scoring(mini))["accuracy"]

    return run


def rounded(bits: int, axis: int | None, leave: str = "none") -> Tensors:
    """The weights rounded to so many bits and back; one scale for all (axis None) or one a row (axis 1)."""
    tensors = read_weights()
    for name, value in tensors.items():
        if value.ndim == 2 and not name.startswith(leave):
            scale = np.abs(value).max(axis=axis, keepdims=True) / (2 ** (bits - 1) - 1)
            tensors[name] = np.round(value / scale) * scale
    return tensors


def test_fp32_gives_the_stated_score(accuracy: Scorer) -> None:
    assert accuracy() == pytest.approx(ACCURACY, abs=0.15)
    assert 88 <= ACCURACY <= 96, "a word error rate between 4 and 12 %"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits_meet_the_target(dtype: str, accuracy: Scorer) -> None:
    assert accuracy(dtype=dtype) >= TARGET


def test_careful_int8_meets_the_target(accuracy: Scorer) -> None:
    """One scale an output channel, the last layer left as it is."""
    assert accuracy(rounded(8, axis=1, leave="joint.net.3")) >= TARGET


def test_careless_int8_misses_the_target(accuracy: Scorer) -> None:
    """One scale a tensor: the joint's channels differ by up to 2^6, so the small ones vanish."""
    assert accuracy(rounded(8, axis=None)) < TARGET - 2


def test_int8_of_the_last_layer_misses_the_target(accuracy: Scorer) -> None:
    """Its channels are columns: a scale a row does not keep the small ones."""
    assert accuracy(rounded(8, axis=1)) < TARGET - 0.5


def test_without_normalisation_it_misses_the_target(accuracy: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "normalised", lambda x, lengths: x)
    assert accuracy() < TARGET - 20


def test_frames_in_another_order_miss_the_target(accuracy: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards(x: torch.Tensor) -> torch.Tensor:
        """The last of three frames first."""
        x = torch.nn.functional.pad(x, (0, 0, 0, -x.shape[1] % 3))
        return x.unflatten(1, (-1, 3)).flip(2).flatten(2)

    monkeypatch.setattr(features, "spliced", backwards)
    assert accuracy() < TARGET - 5


def test_one_label_a_frame_misses_the_target(accuracy: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_SYMBOLS", 1)
    assert accuracy() < TARGET - 5


def test_a_prediction_that_forgets_misses_the_target(accuracy: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last label's embedding reaches the joint."""
    predict = decoding.Greedy.predict

    def forgetful(self: Any, labels: Any, hidden: Any, cell: Any) -> Any:
        return predict(self, labels, torch.zeros_like(hidden), torch.zeros_like(cell))

    monkeypatch.setattr(decoding.Greedy, "predict", forgetful)
    assert accuracy() < TARGET - 2


def test_the_data_is_as_promised(mini: Path, mini_dataset: Dataset) -> None:
    assert mini_dataset.total_count == MINI.samples
    assert len(list((mini / "data").rglob("*.flac"))) == MINI.samples + 2, "two are too long"
    words = sum(len(utterance.transcript.split()) for utterance in mini_dataset.utterances)
    assert words > 1_200, "a word is less than a tenth of a point"
    assert WEIGHTS.stat().st_size < 2_000_000


def test_files_are_the_same_each_time(mini: Path, tmp_path: Path) -> None:
    prepare(tmp_path)
    for file in sorted((mini / "data").rglob("*")):
        if file.is_file():
            assert (tmp_path / file.relative_to(mini)).read_bytes() == file.read_bytes(), file


def test_files_of_another_version_are_replaced(tmp_path: Path) -> None:
    prepare(tmp_path)
    weights, manifest = tmp_path / "model" / CHECKPOINT, tmp_path / "data" / MANIFEST
    weights.write_bytes(b"kept")
    prepare(tmp_path)
    assert weights.read_bytes() == b"kept"
    (tmp_path / "made-from").write_text("an older version")
    manifest.unlink()
    prepare(tmp_path)
    assert not weights.exists()
    assert manifest.is_file()


def test_the_official_line_is_written(mini: Path, tmp_path: Path) -> None:
    arguments = ["run", "--mode", "accuracy", "--scenario", "Offline", "--threads", "1", "--quiet"]
    assert invoke(BENCHMARK, [*arguments, "--data", str(mini), "--output", str(tmp_path)]) == 0
    line = (tmp_path / "Offline" / "accuracy" / "accuracy.txt").read_text()
    assert line.startswith("Word Error Rate: ")
    assert "%, accuracy=" in line
