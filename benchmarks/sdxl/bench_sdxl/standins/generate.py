"""The miniature's world: captions from a grammar, and drawings of what they say, 32 x 32 pixels.

2,160 sentences of the form "a small red circle at the top left on a white background".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_sdxl.tokenizer import BEGIN, END, NEGATIVE, joined, words

SIDE = 32
Specs: TypeAlias = "npt.NDArray[np.int64]"
"""[n, 5]: numbers of size, colour, shape, place and background."""
Points: TypeAlias = "npt.NDArray[Any]"

COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 160, 70),
    "blue": (45, 80, 210),
    "yellow": (240, 205, 40),
    "purple": (140, 60, 170),
    "orange": (245, 130, 30),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
SIZES = {"small": 4.2, "large": 7.2}
"""Pixels from the middle to the edge."""
PLACES = (
    *("at the top left", "at the top", "at the top right"),
    *("at the left", "in the middle", "at the right"),
    *("at the bottom left", "at the bottom", "at the bottom right"),
)
BACKGROUNDS = ("white", "grey", "black", "striped")
_KINDS = (tuple(SIZES), tuple(COLOURS), SHAPES, PLACES, BACKGROUNDS)
COUNTS = tuple(len(kind) for kind in _KINDS)
_FINE = 3  # points of a pixel's side that are looked at


def every_spec() -> Specs:
    """All 2,160."""
    return np.array(list(product(*(range(count) for count in COUNTS))))


def caption(spec: Any) -> str:
    """Of one row."""
    size, colour, shape, place, background = (kind[number] for kind, number in zip(_KINDS, spec, strict=True))
    return f"a {size} {colour} {shape} {place} on a {background} background"


def chosen(count: int) -> Specs:
    """Those of the miniature's captions, none twice."""
    return every_spec()[np.random.default_rng(2014).permutation(int(np.prod(COUNTS)))[:count]]


def latents() -> npt.NDArray[np.float32]:
    """[1, 4, 8, 8]: the noise that each of its images begins with."""
    return np.random.default_rng(0).standard_normal((1, 4, 8, 8), np.float32)


def draw(specs: Specs, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """[n, 32, 32, 3], each a little displaced, larger or smaller, lighter or darker than the next of its kind."""
    parts = [_drawn(specs[at : at + 512], rng) for at in range(0, len(specs), 512)]
    return np.concatenate(parts)


def _drawn(specs: Specs, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    n = len(specs)
    size, colour, shape, place, background = specs.T
    radius = (np.array(list(SIZES.values()))[size] * rng.uniform(0.93, 1.07, n)).astype(np.float32)
    middles = 8 + 8 * np.array([place // 3, place % 3]) + rng.uniform(-0.7, 0.7, (2, n))
    rows, columns = middles.astype(np.float32)
    points = (np.arange(SIDE * _FINE, dtype=np.float32) + 0.5) / _FINE
    y = ((points[None, :] - rows[:, None]) / radius[:, None])[:, :, None]
    x = ((points[None, :] - columns[:, None]) / radius[:, None])[:, None, :]
    covered = np.empty((n, SIDE * _FINE, SIDE * _FINE), np.float32)
    for number, inside in enumerate(_INSIDE):
        of = shape == number
        covered[of] = inside(x[of], y[of])
    share = covered.reshape(n, SIDE, _FINE, SIDE, _FINE).mean(axis=(2, 4))[..., None]
    ink = np.array(list(COLOURS.values()))[colour] + rng.uniform(-12, 12, (n, 1))
    pixels = _paper(background, rng) * (1 - share) + ink[:, None, None, :] * share
    return np.asarray(np.clip(np.round(pixels), 0, 255), np.uint8)


def _cross(x: Points, y: Points) -> Points:
    wide, high = np.abs(x), np.abs(y)
    return ((wide < 0.32) & (high < 1)) | ((high < 0.32) & (wide < 1))


_INSIDE: tuple[Callable[[Points, Points], Points], ...] = (
    lambda x, y: x**2 + y**2 < 1,
    lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.86,
    lambda x, y: (y < 0.8) & (np.abs(x) < (y + 1) * 0.58),
    _cross,
    lambda x, y: np.abs(np.sqrt(x**2 + y**2) - 0.775) < 0.225,
)
"""Of each of SHAPES, which points it covers; its edge is at about 1."""


def _paper(background: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """[n, 32, 32, 3]."""
    shade = np.array([244, 150, 22, 190])[background] + rng.uniform(-7, 7, len(background))
    stripes = np.where((np.arange(SIDE) // 4) % 2 == 1, -90.0, 0.0)
    dark = (background == BACKGROUNDS.index("striped"))[:, None] * stripes
    return np.broadcast_to((shade[:, None] + dark)[:, None, :, None], (len(background), SIDE, SIDE, 3))


def vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces and merges of a tokenizer that has one piece for each word of the captions and of the negative prompt."""
    texts = [*(word for kind in _KINDS for word in kind), "a on background", NEGATIVE]
    known = sorted({word for text in texts for word in words(text)})
    letters = ["!", *sorted({letter for word in known for letter in word})]
    merges = byte_pairs([(*word[:-1], f"{word[-1]}</w>") for word in known])
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *(first + second for first, second in merges)]
    return [*dict.fromkeys(pieces), BEGIN, END], merges


def byte_pairs(known: list[tuple[str, ...]]) -> list[tuple[str, str]]:
    """The merges that make each of these words one piece: each time of the pair that is most frequent."""
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for parts in known for pair in pairwise(parts)):
        best = max(sorted(pairs), key=pairs.__getitem__)
        merges.append(best)
        known = [joined(parts, best) for parts in known]
    return merges
