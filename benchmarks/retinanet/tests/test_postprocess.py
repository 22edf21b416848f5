"""An answer's bytes."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench_retinanet.postprocess import Detections, decode, encode, joined, packed

DATASET: Any = SimpleNamespace(image=800)


def made(counts: list[int]) -> Detections:
    rng = np.random.default_rng(1)
    total = sum(counts)
    boxes = rng.uniform(0, 800, (total, 4)).astype(np.float32)
    scores = rng.uniform(0.06, 1, total).astype(np.float32)
    return Detections(boxes, scores, rng.integers(0, 264, total), np.array(counts))


def answers(found: Detections, indices: list[int]) -> list[bytes]:
    data, offsets, _ = encode(found, np.array(indices), DATASET)
    whole = bytes(memoryview(np.ascontiguousarray(data)).cast("B")) if len(data) else b""
    assert offsets[-1] == len(whole)
    return [whole[start:end] for start, end in pairwise(offsets)]


def test_rows_are_the_references() -> None:
    """Row by row, as the reference app builds its answers."""
    found = made([2, 0, 3])
    expected, place = [], 0
    for index, count in zip([7, 24_780, 3], found.counts, strict=True):
        rows = []
        for _ in range(count):
            left, top, right, bottom = found.boxes[place]
            rows.append([index, top / 800, left / 800, bottom / 800, right / 800, found.scores[place]])
            rows[-1].append(found.labels[place])
            place += 1
        expected.append(np.array(rows, np.float32).tobytes())
    assert answers(found, [7, 24_780, 3]) == expected
    assert expected[1] == b""


def test_one_undoes_the_other() -> None:
    found = made([3, 1])
    first, second = (decode(data) for data in answers(found, [5, 6]))
    assert first.shape == (3, 7)
    assert second[0, 0] == 6
    assert (first[:, 5] == found.scores[:3]).all()
    assert first[:, [2, 1, 4, 3]] * np.float32(800) == pytest.approx(found.boxes[:3], rel=1e-6)
    assert decode(b"").shape == (0, 7)


def test_rows_below_the_threshold_are_left_out() -> None:
    found = made([2, 2])
    found.scores[:] = [0.9, 0.049, 0.05, 0.04]
    assert [len(data) for data in answers(found, [0, 1])] == [28, 28]


def test_an_answer_without_any_detection() -> None:
    assert answers(made([0]), [4]) == [b""]
    assert answers(made([0, 0]), [4, 5]) == [b"", b""]


@pytest.mark.parametrize("column", ["boxes", "scores"])
def test_a_value_that_is_no_number_is_an_error(column: str) -> None:
    found = made([2, 3])
    getattr(found, column)[3] = np.nan
    with pytest.raises(ValueError, match="a detection of sample 12 is not a number; check the backend"):
        encode(found, np.array([11, 12]), DATASET)


@pytest.mark.parametrize("size", [4, 27, 29, 30])
def test_bytes_that_are_no_rows_are_an_error(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes are not rows of 7 float32, 28 bytes each"):
        decode(bytes(size))


def test_padding_is_taken_out_and_batches_are_joined() -> None:
    scores = np.array([[0.9, 0.8, 0], [0, 0, 0], [0.7, 0, 0]], np.float32)
    found = packed(np.arange(36.0).reshape(3, 3, 4), scores, np.arange(9).reshape(3, 3))
    assert found.counts.tolist() == [2, 0, 1]
    assert found.labels.tolist() == [0, 1, 6]
    assert found.boxes[2].tolist() == [24, 25, 26, 27]
    both = joined([found, found])
    assert both.counts.tolist() == [2, 0, 1, 2, 0, 1]
    assert len(both.scores) == 6
