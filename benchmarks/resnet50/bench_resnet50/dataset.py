"""ImageNet-2012's validation set as the official files have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Batch:
    """What a backend gets."""

    images: npt.NDArray[np.uint8]
    """[n, height, width, 3]: red, green, blue; resized and cropped, not yet normalised."""
    variant: str = "tf"
    """A key of `preprocess.NORMALISATIONS`: how the images were resized, and how they are to be normalised."""
