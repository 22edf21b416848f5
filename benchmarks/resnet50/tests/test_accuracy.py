"""Top-1 by the official rule, and the official line."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench_resnet50.accuracy import score
from bench_resnet50.postprocess import decode, encode, logits_of
from loadgen.contracts import InputError
from loadgen.rules import load_round

LABELS = [3, 0, 999, 7, 7]


def data() -> Any:
    files = [SimpleNamespace(name=f"{n}.JPEG") for n in range(len(LABELS))]
    return SimpleNamespace(total_count=len(LABELS), labels=np.array(LABELS), files=files)


def entries(classes: list[float]) -> list[tuple[int, bytes]]:
    return [(index, np.float32(value).tobytes()) for index, value in enumerate(classes)]


def test_counts_as_the_official_script() -> None:
    assert score(entries([3, 0, 999, 7, 7]), data()) == {"accuracy": 100.0, "good": 5, "total": 5}
    assert score(entries([3, 0, 998, 7, -1]), data()) == {"accuracy": 60.0, "good": 3, "total": 5}
    assert score(entries([0, 1, 2, 3, 4]), data())["accuracy"] == 0.0


def test_order_and_repetition_do_not_matter() -> None:
    made = entries([3, 0, 1, 7, 7])
    assert score(reversed(made + made[:2]), data()) == score(made, data())


def test_the_line_is_the_official_one() -> None:
    rules = load_round("v4.0").model("resnet50")
    line = rules.write_accuracy(score(entries([3, 0, 998, 7, 7]), data()))
    assert line == "accuracy=80.000%, good=4, total=5"
    assert rules.read_accuracy(line) == {"accuracy": 80.0}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "5 of 5 samples have no answer, first sample 0"),
        (entries([3, 0, 999, 7]), r"1 of 5 samples have no answer, first sample 4 \(4.JPEG\)"),
        ([*entries(LABELS), (5, bytes(4))], "sample 5 is answered, but the dataset has 5"),
        ([*entries(LABELS), (-1, bytes(4))], "sample -1 is answered"),
        ([*entries(LABELS), (2, bytes(4))], "sample 2 is answered twice, differently"),
        ([*entries(LABELS[:4]), (4, b"")], "sample 4: 0 bytes are no class"),
        ([*entries(LABELS[:4]), (4, bytes(8))], "sample 4: 8 bytes are no class"),
        (entries([3, 0, 999, 7, 7.5]), "sample 4: 7.5 is no class"),
        (entries([3, 0, 999, 7, np.nan]), "sample 4: nan is no class"),
        (entries([3, 0, 999, 7, np.inf]), "sample 4: inf is no class"),
    ],
)
def test_a_wrong_log_is_named(made: list[tuple[int, bytes]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(made, data())


def test_an_answer_is_four_bytes() -> None:
    logits = np.zeros((3, 1000), np.float32)
    logits[[0, 1, 2], [999, 0, 5]] = 1
    logits[2, 17] = 1  # the first of equal ones
    buffer, offsets = encode(logits)
    raw = buffer.tobytes()
    assert offsets.tolist() == [0, 4, 8, 12]
    assert [decode(raw[a:b]) for a, b in pairwise(offsets)] == [999, 0, 5]
    assert raw == np.array([999, 0, 5], "<f4").tobytes()


def test_what_is_not_a_number_is_no_answer() -> None:
    logits = np.zeros((3, 10), np.float32)
    logits[1, 4] = np.nan
    with pytest.raises(ValueError, match="image 1 is not a number"):
        encode(logits)


def test_the_background_class_never_answers() -> None:
    probabilities = np.array([[0.9, 0.02, 0.05, 0.03], [0.0, 1.0, 0.0, 0.0]], np.float32)
    logits = logits_of(probabilities)
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()
    assert encode(logits)[0].tolist() == [1.0, 0.0]
    assert np.allclose(logits[0] - logits[0, 0], np.log([1, 2.5, 1.5]))
