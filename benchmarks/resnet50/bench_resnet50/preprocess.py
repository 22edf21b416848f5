"""From an image file to the pixels that a batch holds, by the official steps in the official order.

It is done while loading. There are two variants, because there are two families of official weights:

- "tf" (TensorFlow, ONNX; TVM is compiled from the ONNX file): the short side to 256 by averaging areas, centre crop
  224, minus the mean. Resizing is OpenCV's INTER_AREA, as in the reference, so pixels are equal to the bit.
- "torch" (PyTorch, ncnn): the short side to 256 bilinearly by Pillow, as torchvision does it, centre crop 224,
  pixels / 255, minus the mean, divided by the deviation.

Mean and deviation are in `batch`: a backend does that part.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from bench_resnet50.batch import Pixels

_CROPPED = 87.5
"""Per cent of the resized short side that the crop keeps: 224 of 256."""
_LONGEST = 32_767
"""Pixels of a side that OpenCV resizes to; an image so long that it would become longer is refused."""


def crop(data: bytes, image: int, variant: str) -> Pixels:
    """[image, image, 3] red, green, blue, of an image file's bytes. Raises ValueError that says what is wrong.

    Grey images come out with three equal channels and CMYK ones converted, as OpenCV reads them.
    """
    pixels = _decoded(data)
    height, width = pixels.shape[:2]
    short = int(100.0 * image / _CROPPED)
    if short * max(height, width) > _LONGEST * min(height, width):
        raise ValueError(f"{width} x {height} pixels are too elongated to be resized")
    size = (short, int(short * height / width)) if height > width else (int(short * width / height), short)
    if variant == "torch":  # torchvision rounds the crop's corner, the reference truncates it
        resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        left, top = (round((length - image) / 2) for length in size)
    else:
        resized = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        left, top = (int((length - image) / 2) for length in size)
    return resized[top : top + image, left : left + image]


def _decoded(data: bytes) -> Pixels:
    _check_end(data)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if pixels is None:
        raise ValueError(f"{len(data)} bytes are not an image that OpenCV {cv2.__version__} reads")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _check_end(data: bytes) -> None:
    """Of a cut JPEG file OpenCV reads what is there, and makes the rest grey in silence.

    Between the last start of a scan and the end marker, no pixels can look like that marker.
    """
    if data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[data.rfind(b"\xff\xda") :]:
        raise ValueError("the JPEG file is cut short, it has no end marker")
