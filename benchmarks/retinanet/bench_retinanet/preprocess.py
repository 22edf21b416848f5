"""From an image file to what the model reads, by the official steps in the official order.

JPEG -> pixels by OpenCV, grey ones as three equal channels, CMYK ones converted; red, green, blue; float32; resized
bilinearly to a square, whatever the shape was; divided by 255; channels first. Resized is what is float32 already:
resizing bytes would round. The model itself subtracts the mean and divides by the deviation.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
Images: TypeAlias = npt.NDArray[np.float32]
"""[n, 3, side, side]: red, green, blue from 0 to 1."""

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""ImageNet's, of values from 0 to 1."""

_END = 0xD9
_ALONE = (0x00, 0x01, *range(0xD0, 0xD9))
"""Of JPEG's codes after 0xFF: the end of the image; those that no segment follows, among them a pixel's own 0xFF."""


def decode(data: bytes) -> Pixels:
    """[height, width, 3] red, green, blue of an image file's bytes. Raises ValueError that says what is wrong."""
    _check_end(data)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if pixels is None:
        raise ValueError(f"{len(data)} bytes are not an image that OpenCV {cv2.__version__} reads")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


# Twin of: benchmarks/resnet50/bench_resnet50/preprocess.py::_check_end
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


def resize_into(target: Images, pixels: Pixels) -> None:
    """Fill [3, side, side] with what the model reads of these pixels."""
    side = target.shape[-1]
    resized = cv2.resize(pixels.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    np.divide(resized.transpose(2, 0, 1), np.float32(255), out=target)
