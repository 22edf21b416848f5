"""Dice is the reference's and MONAI's; planted mistakes change it."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice

from bench_3d_unet.accuracy import dice, score
from bench_3d_unet.dataset import Dataset
from bench_3d_unet.postprocess import decode, encode
from bench_3d_unet.preprocess import Label
from loadgen.contracts import Entry, InputError, Scoring
from loadgen.rules import load_round

make_golden = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("make_golden.py"))))
GOLDEN: dict[str, Any] = json.loads(make_golden.FILE.read_text())
AT = Scoring(Path())


def test_dice_is_the_references() -> None:
    found = [dice(f, t).tolist() for f, t in zip(*make_golden.labels(), strict=True)]
    assert found == pytest.approx(np.array(GOLDEN["dice"]), rel=1e-12)
    assert found[1][1] == 1.0, "a class that neither has is found"
    assert found[2][1] < 1e-6


def test_dice_is_monais() -> None:
    """MONAI has no smoothing, and says nothing of a class that neither has."""
    for found, truth in zip(*make_golden.labels(), strict=True):
        hot = [
            torch.nn.functional.one_hot(torch.from_numpy(part).long(), 3).movedim(-1, 0)[None]
            for part in (found, truth)
        ]
        theirs = compute_dice(*hot, include_background=False, ignore_empty=False)[0].tolist()
        assert dice(found, truth).tolist() == pytest.approx(theirs, abs=1e-6)


def entries(dataset: Dataset, labels: list[Label]) -> Iterator[Entry]:
    """In another order than the samples'."""
    for index in reversed(range(len(labels))):
        answers = encode([labels[index]], np.array([index]), dataset)
        yield Entry(index, bytes(answers.data))


@pytest.fixture(scope="module")
def truth(mini_dataset: Dataset) -> list[Label]:
    return [mini_dataset.label(index) for index in range(mini_dataset.total_count)]


def test_the_truth_scores_1(mini_dataset: Dataset, truth: list[Label]) -> None:
    values = score(entries(mini_dataset, truth), mini_dataset, AT)
    assert values == {"mean": 1.0, "kidney": 1.0, "tumor": 1.0}
    line = load_round("v4.0").model("3d-unet").write_accuracy(values)
    assert line == "Accuracy: mean = 1.00000, kidney = 1.0000, tumor = 1.0000"


def test_mistakes_show(mini_dataset: Dataset, truth: list[Label]) -> None:
    healthy = [np.minimum(labels, 1) for labels in truth]  # tumours taken for kidney
    values = score(entries(mini_dataset, healthy), mini_dataset, AT)
    without = np.mean([(labels != 2).all() for labels in truth])
    assert values["tumor"] == pytest.approx(without, abs=1e-6)
    assert 0.6 < values["kidney"] < 0.95
    assert values["mean"] == (values["kidney"] + values["tumor"]) / 2
    moved = [np.roll(labels, 1, axis=0) for labels in truth]
    assert 0.7 < score(entries(mini_dataset, moved), mini_dataset, AT)["mean"] < 0.95


def test_every_case_is_needed(mini_dataset: Dataset, truth: list[Label]) -> None:
    some = [entry for entry in entries(mini_dataset, truth) if entry.index != 3]
    with pytest.raises(InputError, match="1 of 16 cases have no answer, first case_90003"):
        score(some, mini_dataset, AT)
    assert score(some, mini_dataset, Scoring(Path(), partial=True)) == {"mean": 1.0, "kidney": 1.0, "tumor": 1.0}


def test_answers_that_are_no_labels_of_their_sample_are_named(mini_dataset: Dataset, truth: list[Label]) -> None:
    with pytest.raises(InputError, match=r"sample 2 \(case_90002\): 3 bytes, expected a label for each of .* voxels"):
        score([Entry(2, b"abc")], mini_dataset, AT)
    wrong = truth[2].copy()
    wrong[0, 0, 0] = 7
    with pytest.raises(InputError, match=r"sample 2 \(case_90002\): the answer has a label 7"):
        score([Entry(2, wrong.tobytes())], mini_dataset, AT)


def test_encoding_and_back(mini_dataset: Dataset, truth: list[Label]) -> None:
    answers = encode(truth[:3], np.arange(3), mini_dataset)
    whole, offsets = np.asarray(answers.data).tobytes(), list(answers.offsets)
    for index in range(3):
        labels = decode(whole[offsets[index] : offsets[index + 1]])
        assert (labels.reshape(truth[index].shape) == truth[index]).all()
    one = encode(truth[1:2], np.array([1]), mini_dataset)
    assert (np.asarray(one.data).nbytes, list(one.offsets)) == (truth[1].size, [0, truth[1].size])
