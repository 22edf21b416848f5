"""mAP: against pycocotools by the official script's steps, and what planted mistakes do."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bench_retinanet import accuracy
from bench_retinanet.accuracy import score
from bench_retinanet.annotations import Annotations, Picture
from loadgen.contracts import Entry, InputError, Scoring

AT = Scoring(Path())
CLASSES = 5


def annotations(seed: int, count: int = 40) -> Annotations:
    """Images of any shape with boxes of all sizes, a fifth of them groups, one in ten without any; ids do not begin
    at 1."""
    rng = np.random.default_rng(seed)
    pictures = tuple(Picture(100 + n, f"{n}.jpg", *rng.integers(100, 1100, 2).tolist()) for n in range(count))
    boxes: list[dict[str, Any]] = []
    for picture in pictures:
        for _ in range(0 if rng.random() < 0.1 else rng.integers(1, 8)):
            width, height = np.exp(rng.uniform(np.log(0.02), -0.2, 2)) * [picture.width, picture.height]
            left, top = rng.uniform(0, [picture.width - width, picture.height - height])
            box = {"id": len(boxes) + 1, "image_id": picture.id, "category_id": int(rng.integers(CLASSES))}
            sides = [float(side) for side in (left, top, width, height)]
            boxes.append({**box, "bbox": sides, "area": sides[2] * sides[3], "iscrowd": int(rng.random() < 0.2)})
    return Annotations(pictures, {number: f"class {number}" for number in range(CLASSES)}, tuple(boxes))


def answers(known: Annotations, seed: int) -> list[Entry]:
    """Most boxes a little off, some missed, some of another class, and others where nothing is."""
    rng = np.random.default_rng(seed)
    entries = []
    for index, picture in enumerate(known.pictures):
        rows = []
        for box in known.boxes:
            if box["image_id"] != picture.id or rng.random() < 0.2:
                continue
            for _ in range(rng.integers(1, 3)):
                left, top, width, height = box["bbox"] + rng.normal(0, 0.06, 4) * np.tile(box["bbox"][2:], 2)
                label = box["category_id"] if rng.random() < 0.85 else rng.integers(CLASSES)
                share = np.array([top, left, top + height, left + width]) / np.tile([picture.height, picture.width], 2)
                rows.append([index, *share, rng.choice([0.3, 0.5, 0.9, rng.random()]), label])
        for _ in range(rng.integers(0, 4) if index % 7 else 130):  # more than COCO takes of an image
            corner, side = rng.uniform(0, 0.7, 2), rng.uniform(0.02, 0.3, 2)
            rows.append([index, *corner, *(corner + side), rng.uniform(0.05, 0.4), rng.integers(CLASSES)])
        rows = sorted(rows, key=lambda row: -row[5])
        entries.append(Entry(index, np.array(rows, np.float32).tobytes()))
    return entries


def officially(known: Annotations, entries: list[Entry]) -> float:
    """By pycocotools, from answers as the official script reads them, box by box."""
    truth = COCO()
    truth.dataset = known.as_coco()
    found, seen = [], set()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        for entry in entries:
            picture = known.pictures[entry.index]
            seen.add(picture.id)
            for row in np.frombuffer(entry.data, np.float32).reshape(-1, 7):
                _, top, left, bottom, right, confidence, label = row
                top, bottom = top * np.float32(picture.height), bottom * np.float32(picture.height)
                left, right = left * np.float32(picture.width), right * np.float32(picture.width)
                box = [float(left), float(top), float(right - left), float(bottom - top)]
                category = int(label)
                found.append({"image_id": picture.id, "category_id": category, "bbox": box, "score": float(confidence)})
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.params.imgIds = list(seen)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100.0 * float(evaluation.stats[0])


def ours(known: Annotations, entries: list[Entry]) -> float:
    dataset: Any = SimpleNamespace(annotations=known)
    return score(iter(entries), dataset, AT)["mAP"]


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools_to_the_last_digit(seed: int) -> None:
    known = annotations(seed)
    entries = answers(known, seed + 50)
    expected = officially(known, entries)
    assert 10 < expected < 80
    assert ours(known, entries) == expected


def test_only_answered_images_count() -> None:
    known = annotations(1)
    entries = answers(known, 2)
    assert ours(known, entries[:15]) == officially(known, entries[:15]) != ours(known, entries)


def test_an_image_without_detections_counts_as_missed() -> None:
    known = annotations(1)
    entries = answers(known, 2)
    silent = [entry if entry.index % 2 else Entry(entry.index, b"") for entry in entries]
    assert ours(known, silent) == officially(known, silent)
    assert ours(known, silent) < ours(known, entries)
    assert ours(known, silent) < ours(known, [entry for entry in silent if entry.data])


def test_nothing_detected_at_all_scores_nothing() -> None:
    known = annotations(1)
    assert ours(known, [Entry(index, b"") for index in range(40)]) == 0.0


def test_groups_count_neither_for_nor_against() -> None:
    known = annotations(3)
    entries = answers(known, 4)
    singles = Annotations(known.pictures, known.categories, tuple({**box, "iscrowd": 0} for box in known.boxes))
    assert ours(singles, entries) == officially(singles, entries) != ours(known, entries)


def test_a_box_without_area_is_a_miss() -> None:
    known = annotations(3)
    first = {**known.boxes[0], "bbox": [5.0, 5.0, 0.0, 9.0], "area": 0.0, "iscrowd": 0}
    flat = Annotations(known.pictures, known.categories, (first, *known.boxes[1:]))
    entries = answers(known, 4)
    assert ours(flat, entries) == officially(flat, entries)


def test_the_order_of_answers_does_not_matter() -> None:
    known = annotations(5)
    entries = answers(known, 6)
    assert ours(known, entries[::-1]) == pytest.approx(ours(known, entries), abs=1e-9)


def test_memory_is_for_boxes_and_not_for_pairs_of_an_image_and_a_class() -> None:
    """COCO's tools took 10 GB of 24,781 images and 264 classes: all pairs at once, a hundredth of them with a box."""
    pictures = tuple(Picture(n, f"{n}.jpg", 100, 100) for n in range(1, 1001))
    box = {"bbox": [10.0, 10.0, 50.0, 50.0], "area": 2500.0, "iscrowd": 0}
    boxes = tuple({**box, "id": p.id, "image_id": p.id, "category_id": p.id % 264} for p in pictures)
    known = Annotations(pictures, {number: f"class {number}" for number in range(264)}, boxes)
    rows = [[n, 0.1, 0.1, 0.6, 0.6, 0.9, pictures[n].id % 264] for n in range(1000)]
    entries = [Entry(n, np.array(row, np.float32).tobytes()) for n, row in enumerate(rows)]
    tracemalloc.start()
    try:
        assert ours(known, entries) == pytest.approx(100.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10e6  # all pairs: 40e6


def test_a_long_evaluation_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accuracy, "_TELL_S", 0.0)
    known = annotations(1)
    ours(known, answers(known, 2))
    assert f"scored 3 of {CLASSES} classes" in capsys.readouterr().err


def swapped(rows: Any) -> Any:
    return rows[:, [0, 2, 1, 4, 3, 5, 6]]


def upside_down(rows: Any) -> Any:
    return np.stack([*rows[:, :1].T, 1 - rows[:, 3], rows[:, 2], 1 - rows[:, 1], *rows[:, 4:].T], axis=1)


def one_class_off(rows: Any) -> Any:
    return np.concatenate([rows[:, :6], (rows[:, 6:] + 1) % CLASSES], axis=1)


@pytest.mark.parametrize("mistake", [swapped, upside_down, one_class_off])
def test_planted_mistakes_change_the_score(mistake: Any) -> None:
    known = annotations(7)
    entries = answers(known, 8)
    wrong = [
        Entry(entry.index, mistake(np.frombuffer(entry.data, np.float32).reshape(-1, 7)).astype(np.float32).tobytes())
        for entry in entries
    ]
    assert ours(known, wrong) < 0.5 * ours(known, entries)


ROW = [3, 0.1, 0.1, 0.5, 0.5, 0.9, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([*ROW, 1], "32 bytes are not rows"),
        ([4, *ROW[1:]], "its answer says sample 4"),
        ([*ROW[:5], np.nan, 1], "a value that is not finite"),
        ([*ROW[:6], 5], "class 5 is not in the annotations"),
        ([*ROW[:6], 1.5], "class 1.5 is not in the annotations"),
    ],
)
def test_an_answer_that_is_no_detections_is_named(row: list[float], message: str) -> None:
    with pytest.raises(InputError, match=f"sample 3: .*{message}"):
        ours(annotations(1), [Entry(3, np.array(row, np.float32).tobytes())])


def test_images_without_boxes_alone_cannot_be_scored() -> None:
    known = annotations(1)
    empty = next(n for n, picture in enumerate(known.pictures) if all(b["image_id"] != picture.id for b in known.boxes))
    with pytest.raises(InputError, match="none of the answered images has an annotated box"):
        ours(known, [Entry(empty, b"")])
