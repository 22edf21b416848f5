"""OpenImages in COCO's form: which image is which sample, and the boxes that are in it.

A sample is an image's position in the file. Values are checked once, here, so that nothing behind has to: a category
that is not there would otherwise be a score too low, and a box without an image a crash of the metric.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from loadgen.contracts import InputError

_LONGEST = 65_535
"""Pixels of a side of a JPEG file."""


class Picture(NamedTuple):
    """One image as the file describes it."""

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class Annotations:
    pictures: tuple[Picture, ...]
    """Sample i is the i-th."""
    categories: Mapping[int, str]
    """Class that a detection names -> what it is."""
    boxes: tuple[dict[str, Any], ...]
    """With COCO's keys id, image_id, category_id, bbox (left, top, width, height in pixels), area, and iscrowd as 0
    or 1."""

    def as_coco(self) -> dict[str, Any]:
        """What COCO's tools read; a new dictionary, because they write into it."""
        images = [picture._asdict() for picture in self.pictures]
        categories = [{"id": number, "name": name} for number, name in self.categories.items()]
        return {"images": images, "categories": categories, "annotations": [dict(box) for box in self.boxes]}


def read_annotations(path: Path, classes: int) -> Annotations:
    """classes: as many as the model tells apart, 0 to `classes - 1`.

    Raises InputError that names the file and the entry that is wrong.
    """
    advice = "put the official annotations there, version 2.1 (the command fetch gets them)"
    if not path.is_file():
        raise InputError(f"{path}: no such file: {advice}")
    try:
        document: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}): {advice}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds no JSON object: {advice}")
    images, categories, boxes = (
        _entries(document, key, path, advice) for key in ("images", "categories", "annotations")
    )
    try:
        return _checked(images, categories, boxes, classes)
    except ValueError as error:
        raise InputError(f"{path}: {error}: {advice}") from error


def _entries(document: Mapping[str, Any], key: str, path: Path, advice: str) -> list[Any]:
    found = document.get(key)
    if not isinstance(found, list) or not found:
        raise InputError(f"{path}: {key!r} is missing or empty: {advice}")
    if not all(isinstance(entry, dict) for entry in found):
        raise InputError(f"{path}: {key!r} holds something that is no JSON object: {advice}")
    return found


def _checked(images: list[Any], categories: list[Any], annotations: list[Any], classes: int) -> Annotations:
    """Raises ValueError that names the entry."""
    sizes = ("id", "height", "width")
    pictures = tuple(
        Picture(file_name=_name(image), **{key: _whole(image, key, f"image {place}") for key in sizes})
        for place, image in enumerate(images)
    )
    for place, picture in enumerate(pictures):
        if not (0 < picture.height <= _LONGEST and 0 < picture.width <= _LONGEST):
            raise ValueError(f"image {place}, {picture.file_name}, is {picture.width} x {picture.height} pixels")
    _distinct((picture.id for picture in pictures), "image id")
    _distinct((picture.file_name for picture in pictures), "file name")
    named = {_whole(entry, "id", "a category"): str(entry.get("name", "")) for entry in categories}
    if not set(named) <= set(range(classes)):
        raise ValueError(f"category {max(named)} is not one of the model's classes, 0 to {classes - 1}")
    known = {picture.id for picture in pictures}
    boxes = tuple(_box(entry, known, set(named)) for entry in annotations)
    _distinct((box["id"] for box in boxes), "annotation id")
    return Annotations(pictures, named, boxes)


def _box(entry: Mapping[str, Any], images: set[int], categories: set[int]) -> dict[str, Any]:
    number = _whole(entry, "id", "an annotation")
    where = f"annotation {number}"
    image, category = _whole(entry, "image_id", where), _whole(entry, "category_id", where)
    if image not in images:
        raise ValueError(f"{where} is of image {image}, which is not in the file")
    if category not in categories:
        raise ValueError(f"{where} is of category {category}, which is not in the file")
    sides = entry.get("bbox")
    if not isinstance(sides, list) or len(sides) != 4 or not all(_is_number(side) for side in sides):
        raise ValueError(f"{where} has bbox {sides!r}, expected left, top, width and height")
    if min(sides[2:]) < 0:
        raise ValueError(f"{where} has a width or height below 0: bbox {sides}")
    area = entry["area"] if _is_number(entry.get("area")) else sides[2] * sides[3]
    crowd = is_crowd(entry.get("iscrowd"), where)
    return {"id": number, "image_id": image, "category_id": category, "bbox": sides, "area": area, "iscrowd": crowd}


def is_crowd(value: Any, where: str) -> int:
    """1 for a group of objects, whose detections do not count, else 0.

    Files that differ in the version of pandas that wrote them say 0, 0.0, false, null or NaN for the same. Raises
    ValueError for what is none of these."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return 0
    if not isinstance(value, (bool, int, float)):
        raise ValueError(f"{where} has iscrowd {value!r}, expected 0 or 1")
    return int(value != 0)


def _name(image: Mapping[str, Any]) -> str:
    name = image.get("file_name")
    if not isinstance(name, str) or not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"image {image.get('id')!r} has file_name {name!r}, expected a file below the data's folder")
    return name


def _whole(entry: Mapping[str, Any], key: str, where: str) -> int:
    value: Any = entry.get(key)
    if not _is_number(value) or value != int(value):
        raise ValueError(f"{where} has {key} {value!r}, expected a whole number")
    return int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _distinct(values: Iterable[Any], what: str) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} {value!r} is there twice")
        seen.add(value)
