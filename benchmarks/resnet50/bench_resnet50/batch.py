"""What a backend gets: pixels, and how a model reads them.

A backend normalises images itself, which is a subtraction and a division: a quarter of the bytes go to a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from loadgen.contracts import BackendOptions, InputError

Pixels: TypeAlias = npt.NDArray[np.uint8]
Values: TypeAlias = npt.NDArray[np.float32]


class Normalisation(NamedTuple):
    """(pixels / divisor - mean) / deviation, for red, green and blue."""

    divisor: float
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


NORMALISATIONS: Mapping[str, Normalisation] = MappingProxyType(
    {
        "tf": Normalisation(1.0, (123.68, 116.78, 103.94), (1.0, 1.0, 1.0)),
        "torch": Normalisation(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    }
)
"""Variant (see `preprocess`) -> its constants, the reference's."""

PROFILES: Mapping[str, str] = MappingProxyType({"tf": "full", "torch": "torchvision"})
"""Variant -> the profile of the official weights that were trained with it."""

VARIANT = "variant"
"""The model option by which a profile of official weights says what they were trained with."""


@dataclass(frozen=True)
class Batch:
    """Images that were resized and cropped, and are not yet normalised."""

    source: Pixels
    """[m, height, width, 3], red, green, blue: all images that are loaded, or those of this batch alone."""
    variant: str = "tf"
    """A key of `NORMALISATIONS`: how the images were resized, and how they are to be normalised."""
    rows: npt.NDArray[np.int64] | None = None
    """Which of them, in this order; None: all."""

    def __len__(self) -> int:
        return len(self.source if self.rows is None else self.rows)

    @cached_property
    def images(self) -> Pixels:
        """[n, height, width, 3] of this batch."""
        return self.source if self.rows is None else self.source[self.rows]

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets no more than the batch's own images."""
        return Batch, (self.images, self.variant)


def blank(image: int, count: int = 1) -> Batch:
    """Black images to warm up with; image: pixels of a side."""
    return Batch(np.zeros((count, image, image, 3), np.uint8))


def normalised(batch: Batch) -> Values:
    """What the model reads, [n, height, width, 3], by the batch's variant: the reference's to the bit."""
    divisor, mean, deviation = NORMALISATIONS[batch.variant]
    values = batch.images.astype(np.float32)
    if divisor != 1.0:
        values /= np.float32(divisor)
    values -= np.array(mean, np.float32)
    if batch.variant == "torch":
        values /= np.array(deviation, np.float32)
    return values


def in_parts(images: Values, run: Callable[[Values], Values], rows: int | None, most: int | None = None) -> Values:
    """What `run` gives for all images, one row each.

    rows: of a model of fixed size, which gets so many at a time, the last ones repeated; None: it takes any number.
    most: of such a model, how many it gets at a time.
    """
    step = rows or most or len(images)
    parts = []
    for first in range(0, len(images), step):
        part = images[first : first + step]
        full = np.resize(part, (rows, *part.shape[1:])) if rows and len(part) < rows else part
        parts.append(run(np.ascontiguousarray(full))[: len(part)])
    return np.concatenate(parts)


def check_variant(options: BackendOptions, variant: str) -> None:
    """Raise InputError if the profile's images are prepared for other official weights than this backend's.

    Profiles of weights that we make do not say a variant: there a model reads what its batch says.
    """
    given = options.extra.get(VARIANT, variant)
    if given != variant:
        raise InputError(
            f"this backend's official weights were trained on images prepared in another way than those of "
            f"the profile {PROFILES[given]}: use --profile {PROFILES[variant]}"
        )
