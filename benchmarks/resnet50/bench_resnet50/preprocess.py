"""From an image file to what a model reads, by the official steps in the official order.

The first half (decode, resize, crop) gives uint8 pixels and is done while loading; the second half (normalise)
is a subtraction and a division, which each backend does in its own way: a GPU gets a quarter of the bytes.
There are two variants, because there are two families of official weights:

- "tf" (TensorFlow, ONNX; TVM is compiled from the ONNX file): the short side to 256 by averaging areas, centre crop
  224, minus the mean. Resizing is OpenCV's INTER_AREA, as in the reference, so pixels are equal to the bit.
- "torch" (PyTorch, ncnn): the short side to 256 bilinearly by Pillow, as torchvision does it, centre crop 224,
  pixels / 255, minus the mean, divided by the deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from loadgen.contracts import BackendOptions, InputError

if TYPE_CHECKING:
    from bench_resnet50.dataset import Batch

Pixels: TypeAlias = npt.NDArray[np.uint8]


class Normalisation(NamedTuple):
    """(pixels / divisor - mean) / deviation, for red, green and blue."""

    divisor: float
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def folded(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(scale [3], shift [3]): pixels * scale + shift is the same but for rounding."""
        deviation = np.array(self.deviation)
        scale = 1 / (self.divisor * deviation)
        return scale.astype(np.float32), (-np.array(self.mean) / deviation).astype(np.float32)


NORMALISATIONS: Mapping[str, Normalisation] = MappingProxyType(
    {
        "tf": Normalisation(1.0, (123.68, 116.78, 103.94), (1.0, 1.0, 1.0)),
        "torch": Normalisation(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    }
)
"""Variant -> its constants, the reference's."""

_CROPPED = 87.5
"""Per cent of the resized short side that the crop keeps: 224 of 256."""
_LONGEST = 32_767
"""Pixels of a side that OpenCV resizes to; an image so long that it would become longer is refused."""

PROFILES: Mapping[str, str] = MappingProxyType({"tf": "full", "torch": "torchvision"})
"""Variant -> the profile of the official weights that were trained with it."""

VARIANT = "variant"
"""The model option by which a profile of official weights says what they were trained with."""


def check_variant(options: BackendOptions, variant: str) -> None:
    """Raise InputError if the profile's images are prepared for other official weights than this backend's.

    Profiles of weights that we make do not say a variant: there a model reads what its batch says.
    """
    given = options.extra.get(VARIANT, variant)
    if given != variant:
        raise InputError(
            f"this backend's official weights were trained on images that are prepared otherwise than those of "
            f"the profile {PROFILES[given]}: use --profile {PROFILES[variant]}"
        )


def normalised(batch: Batch) -> npt.NDArray[np.float32]:
    """What the model reads, [n, height, width, 3] float32, by the batch's variant: the reference's to the bit."""
    divisor, mean, deviation = NORMALISATIONS[batch.variant]
    values = batch.images.astype(np.float32)
    if divisor != 1.0:
        values /= np.float32(divisor)
    values -= np.array(mean, np.float32)
    if batch.variant == "torch":
        values /= np.array(deviation, np.float32)
    return values


def crop(data: bytes, image: int, variant: str) -> Pixels:
    """[image, image, 3] red, green, blue, of an image file's bytes. Raises ValueError that says what is wrong.

    Grey images come out with three equal channels and CMYK ones converted, as OpenCV reads them.
    """
    pixels = _decoded(data)
    height, width = pixels.shape[:2]
    short = int(100.0 * image / _CROPPED)
    if short * max(height, width) > _LONGEST * min(height, width):
        raise ValueError(f"{width} x {height} pixels are too elongated to be resized")
    if variant == "torch":
        return _torchvision_crop(pixels, short, image)
    size = (short, int(short * height / width)) if height > width else (int(short * width / height), short)
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    top, left = int((size[1] - image) / 2), int((size[0] - image) / 2)
    return np.asarray(resized[top : top + image, left : left + image], np.uint8)


def _decoded(data: bytes) -> Pixels:
    _check_end(data)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if pixels is None:
        raise ValueError(f"{len(data)} bytes are no image that OpenCV {cv2.__version__} reads")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _check_end(data: bytes) -> None:
    """Of a cut JPEG file OpenCV reads what is there, and makes the rest grey in silence.

    Between the last start of a scan and the end marker, no pixels can look like that marker.
    """
    if data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[data.rfind(b"\xff\xda") :]:
        raise ValueError("the JPEG file is cut short, it has no end marker")


def _torchvision_crop(pixels: Pixels, short: int, image: int) -> Pixels:
    """Its `resize` and `center_crop`, which round the crop's corner where the other variant truncates it."""
    height, width = pixels.shape[:2]
    size = (short, int(short * height / width)) if height > width else (int(short * width / height), short)
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    top, left = round((size[1] - image) / 2), round((size[0] - image) / 2)
    return resized[top : top + image, left : left + image]
