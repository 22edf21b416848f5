"""An answer on the wire: the class, one float32 as the reference sends it, 4 bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bench_resnet50.formats import BACKGROUND


def encode(outputs: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """One buffer of all classes and the byte positions that cut it, from logits [n, classes].

    The first of equal logits wins, as in the reference. Raises ValueError if a logit is not a number: the greatest
    of such logits would be a class like any other.
    """
    if np.isnan(outputs).any():
        row = int(np.isnan(outputs).any(axis=1).argmax())
        raise ValueError(f"a logit of the batch's image {row} is not a number; check the backend")
    buffer = np.argmax(outputs, axis=1).astype(np.float32)
    return buffer, np.arange(len(buffer) + 1, dtype=np.int64) * 4


def decode(data: bytes) -> int:
    """The class. Raises ValueError if the bytes are not one."""
    if len(data) != 4:
        raise ValueError(f"{len(data)} bytes are no class, which is one float32 of 4 bytes")
    value = float(np.frombuffer(data, np.float32)[0])
    if not value.is_integer():
        raise ValueError(f"{value} is no class, which is a whole number")
    return int(value)


def logits_of(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits [n, classes], but for a constant a row, from a model's softmax [n, classes + 1] with the background first.

    The reference takes the model's class minus 1, and so -1, always wrong, where the background wins. Here the
    best of the other classes answers. No weights that were trained on ImageNet's classes choose the background.
    """
    # a probability that is too small for a float32 is 0, and its logarithm no number to compare
    classes = np.maximum(probabilities[:, BACKGROUND:], np.finfo(np.float32).tiny)
    return np.asarray(np.log(classes), np.float32)
