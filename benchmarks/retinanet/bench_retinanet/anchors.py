"""Anchors: boxes of fixed places and sizes, from which the model says how far its detections are off.

Nine to each location of a level: widths and heights of three shapes in three sizes, rounded to half a pixel's
multiples about the location's corner. Locations are `image // grid` pixels apart, so 8, 16, 32, 61 and 114 at 800
pixels, and not the powers of two that a reader expects; they are not moved by half of that either.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bench_retinanet.config import LEVELS, RetinaNetConfig, grids

Boxes: TypeAlias = npt.NDArray[np.float32]
"""[n, 4]: left, top, right, bottom, in pixels."""
SHAPES = (0.5, 1.0, 2.0)
"""Height divided by width."""
CLIP = float(np.log(1000 / 16))
"""The greatest logarithm by which an anchor's side is multiplied: the reference's."""


def level_anchors(config: RetinaNetConfig) -> list[Boxes]:
    """Of each level: [side * side * 9, 4], locations row by row, shapes before sizes."""
    return [_placed(config, level, grid) for level, grid in enumerate(grids(config))]


def cell_anchors(side: int) -> Boxes:
    """[9, 4] about 0, of a level whose smallest anchor has this side."""
    sizes = np.array([side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))], np.float32)
    roots = np.sqrt(np.array(SHAPES, np.float32))[:, None]
    heights, widths = (roots * sizes).ravel(), (1 / roots * sizes).ravel()
    return np.asarray(np.round(np.stack([-widths, -heights, widths, heights], axis=1) / 2), np.float32)


def strides(config: RetinaNetConfig) -> list[int]:
    """Pixels between the locations of each level."""
    return [config.image // grid for grid in grids(config)]


def _placed(config: RetinaNetConfig, level: int, grid: int) -> Boxes:
    assert level < LEVELS
    steps = np.arange(grid, dtype=np.float32) * (config.image // grid)
    left, top = np.meshgrid(steps, steps)
    corners = np.stack([left, top, left, top], axis=2).reshape(-1, 1, 4)
    return np.asarray((corners + cell_anchors(config.anchor << level)).reshape(-1, 4), np.float32)


def all_anchors(config: RetinaNetConfig) -> Boxes:
    """[n, 4] of all levels: 120,087 in the benchmark's model."""
    return np.concatenate(level_anchors(config))
