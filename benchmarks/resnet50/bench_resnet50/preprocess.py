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
_MOST = 1 << 30
"""Bytes of a resized image. An image is refused that would take more, as of one line of pixels 65,535 long 13 GB: the
reference resizes it whole, although all but the middle is cut off, and here as many are resized at once as there are
cores."""

_END = 0xD9
_ALONE = (0x00, 0x01, *range(0xD0, 0xD9))
"""Of JPEG's codes after 0xFF: the end of the image; those that no segment follows, among them a pixel's own 0xFF."""


def crop(data: bytes, image: int, variant: str) -> Pixels:
    """[image, image, 3] red, green, blue, of an image file's bytes. Raises ValueError that says what is wrong.

    Grey images come out with three equal channels and CMYK ones converted, as OpenCV reads them.
    """
    pixels = _decoded(data)
    height, width = pixels.shape[:2]
    short = int(100.0 * image / _CROPPED)
    size = (short, int(short * height / width)) if height > width else (int(short * width / height), short)
    if 3 * size[0] * size[1] > _MOST:
        raise ValueError(
            f"{width} x {height} pixels are too elongated: resized they would take {3e-9 * size[0] * size[1]:.1f} GB"
        )
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

    So go from marker to marker, as a decoder does, until the one that ends the image. What stands inside a segment,
    such as a thumbnail, or behind the end does not matter. Raises ValueError for a file that ends before.
    """
    if not data.startswith(b"\xff\xd8"):
        return
    at = data.find(b"\xff", 2)
    while 0 <= at < len(data) - 1:
        code = data[at + 1]
        if code == _END:
            return
        if code == 0xFF:  # fills up before a marker
            at += 1
        elif code in _ALONE:
            at = data.find(b"\xff", at + 2)
        else:  # a segment: its length, two bytes of which are the length's own
            at = data.find(b"\xff", at + 2 + int.from_bytes(data[at + 2 : at + 4]))
    raise ValueError("the JPEG file is cut short, it has no end marker")
