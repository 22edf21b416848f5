"""The miniature's data: drawn shapes as JPEG files with boxes in COCO's form, as OpenImages has them.

Eight classes of shapes, 12 to 230 pixels wide, before a textured background. What makes it hard: shapes cover each
other, may be turned, stretched and small, and contrast may be low; clutter looks like parts of them. Some images
hold nothing, some a group of which only the whole is annotated. Everything follows from a seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from bench_retinanet.official import ANNOTATIONS, IMAGE_FOLDERS

VAL_SEED, VAL_IMAGES = 2022, 300  # the committed score is of these

Field: TypeAlias = npt.NDArray[np.float32]
Pixels: TypeAlias = npt.NDArray[np.uint8]


def _square(u: Field, v: Field) -> Field:
    return np.asarray(1 - np.maximum(np.abs(u), np.abs(v)), np.float32)


def _diamond(u: Field, v: Field) -> Field:
    return np.asarray(1 - np.abs(u) - np.abs(v), np.float32)


def _disc(u: Field, v: Field) -> Field:
    return np.asarray(1 - np.hypot(u, v), np.float32)


def _ring(u: Field, v: Field) -> Field:
    return np.asarray(0.22 - np.abs(np.hypot(u, v) - 0.78), np.float32)


def _frame(u: Field, v: Field) -> Field:
    return np.asarray(0.2 - np.abs(np.maximum(np.abs(u), np.abs(v)) - 0.8), np.float32)


def _triangle(u: Field, v: Field) -> Field:
    return np.minimum(1 - v, (1 + v) / 2 - np.abs(u))


def _cross(u: Field, v: Field) -> Field:
    a, b = np.abs(u), np.abs(v)
    return np.asarray(np.maximum(np.minimum(0.34 - a, 1 - b), np.minimum(1 - a, 0.34 - b)), np.float32)


def _crescent(u: Field, v: Field) -> Field:
    return np.asarray(np.minimum(1 - np.hypot(u, v), np.hypot(u - 0.5, v) - 0.72), np.float32)


SHAPES: Mapping[str, Callable[[Field, Field], Field]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "frame": _frame,
    "diamond": _diamond,
    "triangle": _triangle,
    "cross": _cross,
    "crescent": _crescent,
}
"""Class -> the field that is positive inside, of coordinates that are -1 to 1 across the shape."""


class Object(NamedTuple):
    """A box in pixels, and what is in it."""

    label: int
    left: float
    top: float
    width: float
    height: float
    group: bool = False
    """Several of the class, which are not boxed one by one."""
    member: bool = False
    """One of a group: known to the training, and not to the annotations."""


def draw(rng: np.random.Generator) -> tuple[Pixels, list[Object]]:
    """An image [height, width, 3] of 180 to 360 pixels a side, red, green, blue, and what it shows."""
    height, width = rng.integers(180, 361, 2).tolist()
    grain = rng.standard_normal((height + 8, width + 8), np.float32)
    picture = _background(height, width, rng)
    objects: list[Object] = []
    for _ in range(0 if rng.random() < 0.04 else 1 + rng.binomial(7, 0.35)):
        longest = min(height, width) * 0.65
        side = float(np.exp(rng.uniform(np.log(13), np.log(longest))))
        if found := _placed(picture, grain, side, int(rng.integers(len(SHAPES))), objects, rng):
            objects.append(found)
    if rng.random() < 0.1:
        objects += _group(picture, grain, objects, rng)
    strength = np.float32(rng.uniform(2, 14))
    for channel in range(3):  # the same grain, moved, so that it is no grey
        picture[:, :, channel] += strength * grain[channel : channel + height, 2 * channel : 2 * channel + width]
    return np.asarray(np.clip(picture, 0, 255), np.uint8), objects


def _background(height: int, width: int, rng: np.random.Generator) -> Field:
    """Smooth colours, a texture, and bars that are no objects."""
    small = np.zeros((24, 24, 3), np.float32)
    for cells, strength in ((4, 25), (24, 14)):
        noise = rng.normal(0, rng.uniform(0.2, 1) * strength, (cells, cells, 3)).astype(np.float32)
        small += cv2.resize(noise, (24, 24), interpolation=cv2.INTER_CUBIC)
    small += rng.uniform(50, 205, 3).astype(np.float32)
    picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(0, 7)):
        start, end = (rng.uniform(0, [width, height], (2, 2))).astype(int).tolist()
        colour = rng.uniform(20, 235, 3).tolist()
        cv2.line(picture, start, end, colour, int(rng.integers(1, 7)), cv2.LINE_AA)
    return np.asarray(picture, np.float32)


def _placed(
    picture: Field, grain: Field, side: float, label: int, objects: list[Object], rng: np.random.Generator
) -> Object | None:
    """Draw a shape where it covers half of another at the most; None: there was no place for it."""
    stretch = float(np.exp(rng.normal(0, 0.25)))
    bounds = np.array(picture.shape[1::-1])
    size = np.minimum([side * stretch, side / stretch], 0.9 * bounds)
    turn = float(rng.normal(0, 0.12))
    for _ in range(8):
        centre = rng.uniform(size * 0.45, bounds - size * 0.45)
        low = np.maximum(centre - 0.75 * size - 2, 0).astype(int)
        high = np.minimum(centre + 0.75 * size + 2, bounds).astype(int)
        mask = _mask(label, low, high, centre, size, turn)
        rows, columns = (np.flatnonzero((mask > 0.5).any(axis=axis)) for axis in (1, 0))
        if len(rows) < 5 or len(columns) < 5:
            continue
        left, top = float(columns[0] + low[0]), float(rows[0] + low[1])
        found = Object(label, left, top, float(np.ptp(columns)) + 1, float(np.ptp(rows)) + 1)
        if all(_covered(other, found) < 0.5 for other in objects):
            place = slice(low[1], high[1]), slice(low[0], high[0])
            _paint(picture[place], grain[place], mask, rng)
            return found
    return None


def _mask(label: int, low: Any, high: Any, centre: Any, size: Any, turn: float) -> Field:
    """How much of the shape each pixel between two corners shows, 0 to 1."""
    x = np.arange(low[0], high[0], dtype=np.float32)[None] - np.float32(centre[0])
    y = np.arange(low[1], high[1], dtype=np.float32)[:, None] - np.float32(centre[1])
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = (x * cos + y * sin) * np.float32(2 / size[0]), (y * cos - x * sin) * np.float32(2 / size[1])
    field = list(SHAPES.values())[label](u, v) * np.float32(min(size) / 2)
    return np.asarray(np.clip(field + 0.5, 0, 1), np.float32)


def _covered(below: Object, above: Object) -> float:
    """The share of one box that another covers, or that it covers of the other, if that is more."""
    wide = min(below.left + below.width, above.left + above.width) - max(below.left, above.left)
    high = min(below.top + below.height, above.top + above.height) - max(below.top, above.top)
    both = max(0.0, wide) * max(0.0, high)
    return both / min(below.width * below.height, above.width * above.height)


def _paint(picture: Field, grain: Field, mask: Field, rng: np.random.Generator) -> None:
    """In a colour that differs from what is below, a little or much, with a texture of its own."""
    share = mask[:, :, None]
    below = (picture * share).sum((0, 1)) / share.sum()
    away = rng.normal(0, 1, 3)
    colour = np.clip(below + away / np.linalg.norm(away) * rng.uniform(28, 130), 5, 250).astype(np.float32)
    texture = (np.float32(rng.uniform(0, 9)) * grain)[:, :, None]
    picture += share * (colour + texture - picture)


def _group(picture: Field, grain: Field, objects: list[Object], rng: np.random.Generator) -> list[Object]:
    """Up to 7 small shapes of one class, and the box around them."""
    label, side = int(rng.integers(len(SHAPES))), float(rng.uniform(16, 34))
    members: list[Object] = []
    for _ in range(7):
        if found := _placed(picture, grain, side, label, [*objects, *members], rng):
            members.append(found._replace(member=True))
    if len(members) < 3:
        return [found._replace(member=False) for found in members]
    left, top = min(m.left for m in members), min(m.top for m in members)
    right, bottom = max(m.left + m.width for m in members), max(m.top + m.height for m in members)
    return [*members, Object(label, left, top, right - left, bottom - top, group=True)]


def sample(seed: int, number: int) -> tuple[bytes, tuple[int, int], list[Object]]:
    """The JPEG file, the height and width, and the objects of one image, whatever others are made."""
    rng = np.random.default_rng([seed, number])
    pixels, objects = draw(rng)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 96))]
    encoded: Any = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)[1]
    return bytes(encoded), (pixels.shape[0], pixels.shape[1]), objects


def write(folder: Path, seed: int = VAL_SEED, count: int = VAL_IMAGES) -> None:
    """`validation/data/*.jpg` and `annotations/openimages-mlperf.json`, byte for byte the same each time."""
    place = folder / IMAGE_FOLDERS[0]
    place.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        data, size, objects = sample(seed, number)
        name = f"{number:016x}.jpg"
        (place / name).write_bytes(data)
        images.append(image_entry(number + 1, name, size))
        annotations += [(number + 1, found) for found in objects if not found.member]
    boxes = [annotation_entry(place + 1, image, found) for place, (image, found) in enumerate(annotations)]
    write_annotations(folder, images, boxes, list(SHAPES))


def image_entry(number: int, name: str, size: tuple[int, int]) -> dict[str, Any]:
    """An image as the official file has it; size: height, width."""
    height, width = size
    return {"id": number, "file_name": name, "height": height, "width": width, "license": None, "coco_url": None}


def annotation_entry(number: int, image: int, found: Object) -> dict[str, Any]:
    """A box as the official file has it."""
    known = dict.fromkeys(("IsOccluded", "IsInside", "IsDepiction", "IsTruncated"), 0)
    return {
        "id": number,
        "image_id": image,
        "category_id": found.label,
        "bbox": [found.left, found.top, found.width, found.height],
        "area": found.width * found.height,
        "iscrowd": int(found.group),
        **known,
        "IsGroupOf": int(found.group),
    }


def write_annotations(
    folder: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], names: list[str]
) -> None:
    """The JSON file, with the official one's keys."""
    (folder / ANNOTATIONS).parent.mkdir(parents=True, exist_ok=True)
    document = {
        "info": {"dataset": "openimages_mlperf", "version": "v6"},
        "licenses": [],
        "categories": [{"id": number, "name": name, "supercategory": None} for number, name in enumerate(names)],
        "images": images,
        "annotations": annotations,
    }
    (folder / ANNOTATIONS).write_text(json.dumps(document))
