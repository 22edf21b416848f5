"""The miniature's data: drawn patterns as JPEG files, in ImageNet's form.

A class is one of ten patterns in a warm or a cold colour, so a model has to see form, texture and colour. What
makes it hard: size, place, angle and proportions vary, contrast may be low, noise and a bar cover a part, and
colours of both kinds overlap, so no model can be right always. Everything follows from a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from bench_resnet50.dataset import MAP

VAL_SEED, VAL_IMAGES = 2012, 2_000  # the committed score is of these

Field: TypeAlias = npt.NDArray[np.float64]
Pattern: TypeAlias = Callable[[Field, Field], Field]


def _triangle(u: Field, v: Field) -> Field:
    return np.minimum(0.55 + v, 0.6 - np.abs(u) * 1.5 - v)


def _cross(u: Field, v: Field) -> Field:
    return np.maximum(_box(u, v, 0.28, 0.95), _box(u, v, 0.95, 0.28))


def _box(u: Field, v: Field, width: float, height: float) -> Field:
    return np.minimum(width - np.abs(u), height - np.abs(v))


def _ring(u: Field, v: Field) -> Field:
    return 0.22 - np.abs(np.hypot(u, v) - 0.68)


def _windowed(texture: Pattern) -> Pattern:
    """Only a square of the texture, so that every pattern has an outline."""
    return lambda u, v: np.minimum(_box(u, v, 0.95, 0.95), texture(u, v))


def _wave(phase: Field) -> Field:
    """A wave's value, scaled to change by about 1 a unit of length where it crosses 0."""
    return np.sin(phase) / 9


PATTERNS: tuple[tuple[str, Pattern], ...] = (
    ("disc", lambda u, v: 0.85 - np.hypot(u, v)),
    ("ring", _ring),
    ("square", lambda u, v: _box(u, v, 0.78, 0.78)),
    ("triangle", _triangle),
    ("cross", _cross),
    ("stripes", _windowed(lambda u, v: _wave(9 * u))),
    ("checks", _windowed(lambda u, v: np.sin(7 * u) * np.sin(7 * v) / 7)),
    ("dots", _windowed(lambda u, v: _wave(np.pi / 2 + 9 * u) + _wave(np.pi / 2 + 9 * v) - 0.05)),
    ("circles", _windowed(lambda u, v: _wave(10 * np.hypot(u, v)))),
    ("waves", _windowed(lambda u, v: _wave(9 * u + 1.6 * np.sin(5 * v)))),
)
"""Name -> the field that is positive inside, of coordinates that are -1 to 1 across the pattern."""

CLASSES = 2 * len(PATTERNS)
"""Even ones are cold, odd ones warm."""


def draw(label: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """An image [height, width, 3], red, green, blue, of 72 to 143 pixels a side."""
    height, width = rng.integers(72, 144, 2)
    size = min(height, width) * rng.uniform(0.25, 0.44)
    y, x = np.mgrid[:height, :width].astype(float)
    mask = _mask(label // 2, x - width / 2, y - height / 2, size, rng)
    paper = rng.uniform(60, 195, 3).mean() + rng.normal(0, 9, 3)
    picture = paper + mask[..., None] * _ink(label % 2, rng)
    picture += rng.normal(0, 25) * (x / width - 0.5)[..., None] + rng.normal(0, 25) * (y / height - 0.5)[..., None]
    _cover(picture, rng)
    picture += rng.normal(0, rng.uniform(4, 26), picture.shape)
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def _mask(pattern: int, x: Field, y: Field, size: float, rng: np.random.Generator) -> Field:
    """How much ink a pixel has, 0 to 1."""
    across, down = rng.uniform(-0.3, 0.3, 2) * size
    turn, stretch = rng.normal(0, 0.35), np.exp(rng.normal(0, 0.12))
    u = ((x - across) * np.cos(turn) + (y - down) * np.sin(turn)) / (size * stretch)
    v = ((y - down) * np.cos(turn) - (x - across) * np.sin(turn)) / size * stretch
    return np.clip(PATTERNS[pattern][1](u, v) * size + 0.5, 0, 1)


def _ink(warm: int, rng: np.random.Generator) -> Field:
    """What the pattern adds to the paper: lighter or darker, and more red or more blue."""
    light = rng.choice([-1, 1]) * rng.uniform(18, 60)
    warmth = (34 if warm else -34) + rng.normal(0, 17)
    return np.array([light + warmth, light + rng.normal(0, 12), light - warmth])


def _cover(picture: Field, rng: np.random.Generator) -> None:
    """A bar across the image."""
    height, width = picture.shape[:2]
    start, end = rng.uniform(0, [width, height], (2, 2)).astype(int).tolist()
    grey = rng.uniform(30, 225)
    thickness = int(rng.uniform(0.03, 0.15) * min(height, width)) + 1
    cv2.line(picture, start, end, (grey, grey, grey), thickness)


def jpeg(label: int, rng: np.random.Generator) -> bytes:
    """A JPEG file's bytes."""
    pixels = cv2.cvtColor(draw(label, rng), cv2.COLOR_RGB2BGR)
    quality = int(rng.integers(60, 96))
    encoded: Any = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return bytes(encoded)


def sample(seed: int, number: int) -> tuple[bytes, int]:
    """The JPEG file and the class of one image, whatever others are made."""
    rng = np.random.default_rng([seed, number])
    label = int(rng.integers(CLASSES))
    return jpeg(label, rng), label


def write(folder: Path, seed: int = VAL_SEED, count: int = VAL_IMAGES) -> None:
    """`val/*.JPEG` and `val_map.txt`, byte for byte the same each time."""
    (folder / "val").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        data, label = sample(seed, number)
        name = f"val/ILSVRC2012_val_{number + 1:08}.JPEG"
        (folder / name).write_bytes(data)
        lines.append(f"{name} {label}")
    (folder / MAP).write_text("\n".join(lines) + "\n")
