"""Answers on the wire, and top-1 by the official rule and in the official line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench_resnet50 import accuracy
from bench_resnet50.postprocess import DTYPES, decode, encode, logits_of
from loadgen.contracts import Entry, InputError, Scoring
from loadgen.rules import load_round

LABELS = [3, 0, 999, 7, 7]
DATA: Any = SimpleNamespace(labels=np.array(LABELS), files=[Path(f"{n}.JPEG") for n in range(len(LABELS))])


def score(*classes: float) -> dict[str, float]:
    entries = (Entry(index, np.float32(value).tobytes()) for index, value in enumerate(classes))
    return accuracy.score(entries, DATA, Scoring(Path()))


def test_counts_as_the_official_script() -> None:
    assert score(3, 0, 999, 7, 7) == {"accuracy": 100.0, "good": 5, "total": 5}
    assert score(3, 0, 998, 7, -1) == {"accuracy": 60.0, "good": 3, "total": 5}
    assert score(0, 1, 2, 3, 4)["accuracy"] == 0.0


def test_order_does_not_matter() -> None:
    entries = [Entry(index, np.float32(value).tobytes()) for index, value in enumerate([3, 0, 1, 7, 7])]
    assert accuracy.score(reversed(entries), DATA, Scoring(Path())) == score(3, 0, 1, 7, 7)


def test_the_line_is_the_official_one() -> None:
    rules = load_round("v4.0").model("resnet50")
    line = rules.write_accuracy(score(3, 0, 998, 7, 7))
    assert line == "accuracy=80.000%, good=4, total=5"
    assert rules.read_accuracy(line) == {"accuracy": 80.0}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "sample 4: 0 bytes .. are not a class"),
        (bytes(5), "sample 4: 5 bytes .0000000000. are not a class, which is one float32, int32 or int64"),
        (np.float64(7).tobytes(), "sample 4: 8 bytes .0000000000001c40. are not a class"),
        (np.float32(7.5).tobytes(), "sample 4: 4 bytes .0000f040. are not a class"),
        (np.float32(np.nan).tobytes(), "sample 4: 4 bytes .0000c07f. are not a class"),
        (np.float32(np.inf).tobytes(), "sample 4: 4 bytes .0000807f. are not a class"),
    ],
)
def test_what_is_not_a_class_is_named(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        accuracy.score([Entry(4, data)], DATA, Scoring(Path()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_systems_number_formats_show_themselves(dtype: str) -> None:
    for value in (*range(-1, 1001), 2**23 - 1):
        data = np.array(value, dtype).tobytes()
        assert decode(data) == decode(data, dtype) == value
    for other in set(DTYPES) - {dtype}:
        with pytest.raises(ValueError, match=f"which is one {other}"):
            decode(np.array(7, dtype).tobytes(), other)


def test_a_number_format_that_is_told() -> None:
    entries = [Entry(index, np.int64(value).tobytes()) for index, value in enumerate([3, 0, 998, 7, -1])]
    for dtype in ("", "int64"):
        assert accuracy.score(entries, DATA, Scoring(Path(), dtype=dtype))["good"] == 3
    with pytest.raises(InputError, match=r"sample 0: 8 bytes .0300000000000000. are not a class, which is one int32"):
        accuracy.score(entries, DATA, Scoring(Path(), dtype="int32"))
    with pytest.raises(InputError, match="--dtype 'uint8': use one of float32, int32, int64"):
        accuracy.score(entries, DATA, Scoring(Path(), dtype="uint8"))


def test_a_part_is_divided_by_its_own_number() -> None:
    entries = [Entry(index, np.float32(LABELS[index] + index % 2).tobytes()) for index in (4, 1, 2)]
    assert accuracy.score(entries, DATA, Scoring(Path())) == {"accuracy": pytest.approx(200 / 3), "good": 2, "total": 3}
    assert accuracy.score(entries, DATA, Scoring(Path(), max_examples=3))["total"] == 2
    with pytest.raises(InputError, match="--max-examples 1: none of them is answered"):
        accuracy.score(entries, DATA, Scoring(Path(), max_examples=1))


def test_an_answer_is_four_bytes() -> None:
    logits = np.zeros((3, 1000), np.float32)
    logits[[0, 1, 2], [999, 0, 5]] = 1
    logits[2, 17] = 1  # the first of equal ones
    data, offsets, n_tokens = encode(logits, np.array([4, 0, 2]), DATA)
    raw = bytes(np.asarray(data))
    assert (list(offsets), n_tokens) == ([0, 4, 8, 12], None)
    assert [decode(raw[a:b]) for a, b in pairwise(offsets)] == [999, 0, 5]
    assert raw == np.array([999, 0, 5], "<f4").tobytes()


def test_what_is_not_a_number_is_no_answer() -> None:
    logits = np.zeros((3, 10), np.float32)
    logits[1, 4] = np.nan
    with pytest.raises(ValueError, match=r"sample 2, 2\.JPEG, is not a number"):
        encode(logits, np.array([4, 2, 0]), DATA)


def test_the_background_class_never_answers() -> None:
    probabilities = np.array([[0.9, 0.02, 0.05, 0.03], [0.0, 1.0, 0.0, 0.0]], np.float32)
    logits = logits_of(probabilities)
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()
    assert np.asarray(encode(logits, np.array([0, 1]), DATA).data).tolist() == [1.0, 0.0]
    assert np.allclose(logits[0] - logits[0, 0], np.log([1, 2.5, 1.5]))
