"""A CT volume and its labels as the model takes them: the official steps in the official order, on arrays.

Axes are those of KiTS19's files: slices, rows, columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Image: TypeAlias = "npt.NDArray[np.float32]"
Label: TypeAlias = "npt.NDArray[np.uint8]"

SPACING = (1.6, 1.2, 1.2)  # mm between voxels
CLIP = (-79.0, 304.0)  # Hounsfield units
MEAN, DEVIATION = 101.0, 76.9  # Hounsfield units
PADDING = -2.2  # of the normalised image; labels are padded with 0, the background
"""All are the reference's (`global_vars.py`)."""


class Volume(NamedTuple):
    """What is measured of one case."""

    image: Image
    """float32 [1, D, H, W], normalised."""
    label: Label
    """uint8 [1, D, H, W]."""


def preprocess(image: Image, label: Label, spacing: tuple[float, float, float], window: int = 128) -> Volume:
    """image: Hounsfield units [D, H, W]; label: classes of the same shape; spacing: mm. window: see `fitted`."""
    return fitted(normalised(resampled(image, spacing, order=1)), resampled(label, spacing, order=0), window)


def resampled(volume: npt.NDArray[Any], spacing: tuple[float, float, float], order: int) -> npt.NDArray[Any]:
    """The volume with SPACING between its voxels. order: 0 takes the nearest voxel, 1 interpolates linearly."""
    from scipy.ndimage import zoom

    if spacing == SPACING:
        return volume
    factors = np.array(spacing) / np.array(SPACING)
    zoomed: npt.NDArray[Any] = zoom(volume, factors, order=order, mode="constant", cval=volume.min(), grid_mode=False)
    return zoomed


def normalised(image: npt.NDArray[Any]) -> Image:
    """Hounsfield units clipped to what tells tissues apart, with mean 0 and deviation 1 over KiTS19's kidneys."""
    values: Image = (np.clip(image, *CLIP) - MEAN) / DEVIATION
    return values.astype(np.float32, copy=False)


def fitted(image: Image, label: Label, window: int) -> Volume:
    """Both as [1, D, H, W] with sides that windows at steps of half a window fill.

    A side below a window is first continued by its edge. Then what is left over after whole steps is cut off if it is
    less than half a step, and filled up to a whole step if it is more: half of it before, the rest behind.
    """
    short = [_halved(max(0, window - side)) for side in image.shape]
    image, label = np.pad(image, short, mode="edge"), np.pad(label, short, mode="edge")
    step = window // 2
    cuts, fills = [], []
    for side in image.shape:
        over = side % step
        is_cut = over < step // 2
        before, behind = _halved(over) if is_cut else (0, 0)
        cuts.append(slice(before, side - behind))
        fills.append((0, 0) if is_cut else _halved(step - over))
    image = np.pad(image[tuple(cuts)], fills, constant_values=PADDING)
    label = np.pad(label[tuple(cuts)], fills, constant_values=0)
    return Volume(np.ascontiguousarray(image[None]), np.ascontiguousarray(label[None]))


def _halved(total: int) -> tuple[int, int]:
    return total // 2, total - total // 2
