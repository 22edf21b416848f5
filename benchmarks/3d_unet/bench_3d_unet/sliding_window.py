"""Volumes larger than a model's window: the window goes over them in steps of half its side, and the logits of all
places are added with weights that fall off from the window's middle. A voxel's label is its greatest sum.

The reference also divides the sums by those of the weights, which changes no label: they are the same for all classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_3d_unet.official import CLASSES
from bench_3d_unet.preprocess import Label

F32: TypeAlias = "npt.NDArray[np.float32]"
Predict: TypeAlias = "Callable[[F32], F32]"
"""Windows [n, 1, W, W, W] -> logits [n, 3, W, W, W]."""
Place: TypeAlias = "tuple[slice, slice, slice]"

SIGMA = 1 / 8  # of the Gaussian that the weights come from, in sides of the window (the reference's)


class Cut(NamedTuple):
    """A window: which volume of a batch, and where in it."""

    volume: int
    place: Place


def places(shape: Sequence[int], window: int) -> Iterator[Place]:
    """Where the window lies, the last axis fastest. shape: multiples of half a window, at least a whole one."""
    for z, y, x in product(*(range(0, side - window + 1, window // 2) for side in shape)):
        yield slice(z, z + window), slice(y, y + window), slice(x, x + window)


def count(shape: Sequence[int], window: int) -> int:
    """How many places there are."""
    return math.prod((side - window) // (window // 2) + 1 for side in shape)


def at_once(window: int) -> int:
    """How many windows a CPU computes best together: one of 128 voxels a side fills its cores, and 1 GB of memory;
    small ones share what a call costs."""
    return max(1, min(8, 128**3 // window**3))


def weights(window: int) -> F32:
    """[W, W, W], 1 at the middle. The reference takes the cube root of a product of three Gaussians, so what is meant
    to have a sigma of 16 voxels in a window of 128 has one of sqrt(3) * 16 = 27.7."""
    distance = np.arange(window) - (window - 1) / 2
    exponent = (distance / (SIGMA * window)) ** 2 / 2
    sums = exponent[:, None, None] + exponent[:, None] + exponent
    found: F32 = np.exp((sums.min() - sums) / 3).astype(np.float32)
    return found


def segment(volumes: Sequence[F32], predict: Predict, window: int, batch: int) -> list[Label]:
    """The labels uint8 [D, H, W] of volumes float32 [D, H, W]. Windows go to `predict` in batches of up to `batch`,
    one volume's last ones together with the first ones of the next.

    Raises ValueError for logits that are not finite.
    """
    weight = weights(window)
    labels: list[Label] = []
    cuts = (Cut(number, place) for number, volume in enumerate(volumes) for place in places(volume.shape, window))
    sums: list[F32] = []  # of volumes that have no labels yet
    while group := list(islice(cuts, batch)):
        logits = predict(np.stack([volumes[number][place] for number, place in group])[:, None])
        for (number, place), found in zip(group, logits, strict=True):
            while len(labels) + len(sums) <= number:
                labels += [labels_of(done) for done in sums]  # all its windows came before this one
                sums = [np.zeros((len(CLASSES), *volumes[number].shape), np.float32)]
            sums[-1][(slice(None), *place)] += found * weight
    return labels + [labels_of(done) for done in sums]


def labels_of(sums: F32) -> Label:
    """uint8 [D, H, W]: the position of the greatest of the sums [3, D, H, W], the first of equal ones."""
    if not np.isfinite(sums.sum(dtype=np.float64)):
        raise ValueError("the model's logits are not all finite")
    labels: Label = np.empty(sums.shape[1:], np.uint8)
    slices = zip(labels, *sums, strict=True)  # at once what lies between would take 6 bytes a voxel
    for found, background, kidney, tumor in slices:
        found[...] = kidney > background
        found[tumor > np.maximum(background, kidney)] = 2
    return labels
