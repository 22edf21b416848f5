"""An answer on the wire: uint8 [1024, 1024, 3], red, green, blue, 3,145,728 bytes."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bench_sdxl.dataset import Dataset
from loadgen.contracts import I64, Answers

Image: TypeAlias = "npt.NDArray[np.uint8]"


def encode(outputs: Image, indices: I64, dataset: Dataset) -> Answers:
    """From images [n, H, W, 3]; their order is all that says which samples they are of."""
    size = outputs[0].nbytes if len(outputs) else 0
    return Answers(np.ascontiguousarray(outputs), np.arange(len(outputs) + 1) * size)


def decode(data: bytes) -> Image:
    """[side, side, 3] from the bytes of one answer. Raises ValueError if they are no square image."""
    side = math.isqrt(len(data) // 3)
    if not data or 3 * side * side != len(data):
        raise ValueError(f"{len(data)} bytes are not a square image of 3 bytes a pixel")
    return np.frombuffer(data, np.uint8).reshape(side, side, 3)
