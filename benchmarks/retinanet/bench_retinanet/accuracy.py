"""Mean average precision by COCO's rules, as the official script asks for it: of the images that were answered.

Ten overlaps from 0.5 to 0.95, all sizes, 100 detections of an image and class; a group's box counts neither for nor
against. `faster-coco-eval` computes it, and gives what `pycocotools` does to the last digit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_retinanet.annotations import Annotations
from bench_retinanet.dataset import Dataset
from bench_retinanet.postprocess import COLUMNS, decode
from loadgen.contracts import Entry, InputError, Scoring

Table: TypeAlias = npt.NDArray[np.float64]
"""[m, 7] as COCO's tools read it: image id, left, top, width, height in pixels, score, class."""
_MOST = 100
"""Detections of an image and class that count."""
_TELL_S = 5.0
"""How often a long evaluation says how far it is."""


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """`mAP` in percent. Without any detection it is 0.

    Raises InputError that names the sample if it is answered with something that is no list of detections.
    """
    seen, tables = [], []
    for entry in entries:
        seen.append(dataset.annotations.pictures[entry.index].id)
        tables.append(table(entry, dataset.annotations))
    detections = np.concatenate(tables) if tables else np.empty((0, COLUMNS))
    return {"mAP": 100.0 * mean_precision(dataset.annotations, seen, detections)}


def table(entry: Entry, annotations: Annotations) -> Table:
    """The detections of one answer. Shares become pixels in float32, as in the official script."""
    try:
        rows = decode(entry.data)
    except ValueError as error:
        raise InputError(f"sample {entry.index}: {error}; the log is damaged or of another benchmark") from error
    _check(rows, entry.index, annotations)
    picture = annotations.pictures[entry.index]
    sides = np.array([picture.height, picture.width] * 2, np.float32)
    top, left, bottom, right = (rows[:, 1:5] * sides).T
    columns = (np.full(len(rows), picture.id), left, top, right - left, bottom - top, rows[:, 5], rows[:, 6])
    return np.stack(columns, axis=1, dtype=np.float64)


def _check(rows: npt.NDArray[np.float32], index: int, annotations: Annotations) -> None:
    """Raises InputError. The sample's index may be as inexact as float32 is, as in the official script."""
    if (rows[:, 0] != np.float32(index)).any():
        raise InputError(f"sample {index}: its answer says sample {rows[0, 0]:g}; the log is damaged")
    if not np.isfinite(rows).all():
        raise InputError(f"sample {index}: its answer holds a value that is not finite; check the backend")
    unknown = set(rows[:, 6].tolist()) - set(annotations.categories)
    if unknown:
        raise InputError(
            f"sample {index}: class {min(unknown):g} is not in the annotations; the log is damaged or of another model"
        )


def mean_precision(annotations: Annotations, seen: Sequence[int], detections: Table) -> float:
    """0 to 1, over the images of these ids. Raises InputError if nothing in them is annotated.

    Class by class, because COCO's tools keep something of each pair of an image and a class, as few as have a box: of
    all 24,781 images at once they take 10 GB.
    """
    answered = set(seen)
    truth: dict[int, list[dict[str, Any]]] = {}
    for box in annotations.boxes:
        if box["image_id"] in answered:
            truth.setdefault(box["category_id"], []).append(box)
    found = detections[np.argsort(detections[:, -1], kind="stable")]
    parts = []
    for label in _telling(sorted(truth)):
        first, last = np.searchsorted(found[:, -1], [label, label + 1])
        parts.append(_precisions(annotations, label, truth[label], found[first:last]))
    reached = np.concatenate(parts, axis=2) if parts else np.empty(0)
    reached = reached[reached > -1]  # -1: of a class with groups alone
    if not reached.size:
        raise InputError("none of the answered images has an annotated box, so there is nothing to score")
    return float(np.mean(reached))


def _precisions(annotations: Annotations, label: int, boxes: Sequence[dict[str, Any]], found: Table) -> Table:
    """[overlaps, recalls, 1] of one class, in the images that have a box of it or were said to have one."""
    from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]

    images = {box["image_id"] for box in boxes}.union(map(int, found[:, 0].tolist()))
    pictures = tuple(picture for picture in annotations.pictures if picture.id in images)
    truth = COCO(Annotations(pictures, {label: annotations.categories[label]}, tuple(boxes)).as_coco())
    evaluation: Any = COCOeval_faster(truth, truth.loadRes([*map(_result, found.tolist())]), iouType="bbox")
    sizes = evaluation.params.areaRngLbl.index("all")
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [evaluation.params.areaRng[sizes]], ["all"]
    evaluation.params.maxDets = [_MOST]
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"], np.float64)[..., 0, 0]


def _result(row: Sequence[float]) -> dict[str, Any]:
    image, left, top, width, height, confidence, label = row
    box = [left, top, width, height]
    return {"image_id": int(image), "bbox": box, "score": confidence, "category_id": int(label), "segmentation": []}


def _telling(labels: Sequence[int]) -> Iterator[int]:
    """The same, with a line on stderr now and then if it takes long."""
    told = time.monotonic()
    for number, label in enumerate(labels):
        if time.monotonic() - told > _TELL_S:
            told = time.monotonic()
            print(f"scored {number:,} of {len(labels):,} classes", file=sys.stderr, flush=True)
        yield label
