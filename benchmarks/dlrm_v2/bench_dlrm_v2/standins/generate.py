"""The miniature's clicks: users and items with hidden tastes, written as the official day-23 files.

Whether a user clicks follows from what each index says by itself, from how well tastes of user and item agree (a
product, for the cross network to find), from the 13 numbers, and from chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_dlrm_v2.official import DENSE_FEATURES, HOTS, ROWS, TABLES
from bench_dlrm_v2.standins.day_23 import write_day

F32: TypeAlias = npt.NDArray[np.float32]
I32: TypeAlias = npt.NDArray[np.int32]

MINI_ROWS = tuple(min(rows, 200) for rows in ROWS)
MINI_HOTS = tuple(min(hot, 5) for hot in HOTS)
"""73 in all, instead of 214."""
WORLD_SEED, DAY_SEED = 23, 23_000
PAIRS = 80_001
"""Rows of the files. As of the real day the first half, rounded up, is for validation: 40,001 in 149 samples."""
TASTES = 2
_ALONE, _AGREEING, _DENSE, _OFFSET = 1.2, 1.3, 0.5, -1.75
"""Shares in the logit of clicking, in standard deviations of 1; the offset makes a quarter of all pairs clicks."""


class Pairs(NamedTuple):
    """Columns of n pairs."""

    dense: F32
    """[n, 13]"""
    indices: tuple[I32, ...]
    """[n, hot] of each table."""
    labels: I32
    """[n]: 1 is a click."""
    chances: F32
    """[n]: of a click, which nobody could know better; not in the files."""


@dataclass(frozen=True)
class World:
    """What is behind the clicks: for each row of each table a weight and a taste."""

    weights: tuple[F32, ...]
    tastes: tuple[F32, ...]
    """[rows, TASTES] of each table; users' in even ones, items' in odd ones."""
    dense: F32
    """[13]"""

    def draw(self, seed: int, count: int) -> Pairs:
        """Pairs that are like those of every other seed."""
        rng = np.random.default_rng(seed)
        indices = tuple(_popular(rng, rows, (count, hot)) for rows, hot in zip(MINI_ROWS, MINI_HOTS, strict=True))
        alone = np.zeros(count, np.float32)
        sides = np.zeros((2, count, TASTES), np.float32)
        for number, ids in enumerate(indices):
            scale = np.float32((ids.shape[1] * TABLES) ** -0.5)
            alone += scale * self.weights[number][ids].sum(axis=1)
            for column in range(ids.shape[1]):
                sides[number % 2] += 2**0.5 * scale * self.tastes[number][ids[:, column]]
        dense = np.log(3 + rng.exponential(20.0, (count, DENSE_FEATURES))).astype(np.float32)
        agreeing = (sides[0] * sides[1]).sum(axis=1) * TASTES**-0.5
        logits = _ALONE * alone + _AGREEING * agreeing + _DENSE * ((dense - 2.8) @ self.dense) + _OFFSET
        chances = 1 / (1 + np.exp(-logits))
        labels = (rng.random(count) < chances).astype(np.int32)
        return Pairs(dense, indices, labels, chances.astype(np.float32))


def world(seed: int = WORLD_SEED) -> World:
    """The one that the committed weights were trained in."""
    rng = np.random.default_rng(seed)
    weights = tuple(rng.standard_normal(rows, np.float32) for rows in MINI_ROWS)
    tastes = tuple(rng.standard_normal((rows, TASTES), np.float32) for rows in MINI_ROWS)
    return World(
        tuple(map(_centred, weights)),
        tuple(map(_centred, tastes)),
        rng.standard_normal(13, np.float32) * np.float32(0.25),
    )


def _centred(values: F32) -> F32:
    """Small tables too carry what they should: mean 0 and deviation 1 of the rows."""
    centred: F32 = (values - values.mean(axis=0)) / values.std(axis=0)
    return centred


def _popular(rng: np.random.Generator, rows: int, shape: tuple[int, int]) -> I32:
    """Indices of which low ones come often: the chance of one falls with its root."""
    return (rows * rng.random(shape, np.float32) ** 2 * 0.999_999).astype(np.int32)


def write(data: Path) -> None:
    """The three official files."""
    pairs = world().draw(DAY_SEED, PAIRS)
    write_day(data, pairs.dense, pairs.indices, pairs.labels)
