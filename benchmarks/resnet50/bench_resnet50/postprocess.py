"""From a model's outputs to an answer on the wire: the class, one float32 as the reference sends it, 4 bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench_resnet50.batch import Values
from bench_resnet50.config import ResNetConfig
from bench_resnet50.dataset import Dataset
from bench_resnet50.official import BACKGROUND
from loadgen.contracts import I64, Answers, InputError

DTYPES = ("float32", "int32", "int64")
"""Number formats of the official script; the first is ours."""
_GREATEST = 2**23
"""Below it int32 has the bits of no normal float32, and so of no whole number but 0."""


def encode(outputs: Values, indices: I64, dataset: Dataset) -> Answers:
    """The classes of a batch, from logits [n, classes].

    The first of equal logits wins, as in the reference. Raises ValueError if a logit is not a number: the greatest
    of such logits would be a class like any other.
    """
    if np.isnan(outputs).any():
        index = int(indices[np.isnan(outputs).any(axis=1).argmax()])
        raise ValueError(f"a logit of sample {index}, {dataset.files[index].name}, is not a number; check the backend")
    classes = np.argmax(outputs, axis=1).astype(np.float32)
    return Answers(classes, np.arange(len(classes) + 1, dtype=np.int64) * 4)


def decode(data: bytes, dtype: str = "") -> int:
    """The class. Raises ValueError if the bytes are not one.

    dtype: one of DTYPES; empty: what the bytes say themselves. Eight are an int64. Four are a float32 or an int32, and
    never could be both: the bits of a small whole number of one kind are far from a whole number in the other.
    """
    found = {name: _read(data, name) for name in ([dtype] if dtype else DTYPES)}
    classes = {value for value in found.values() if value is not None}
    if len(classes) != 1:
        kinds = dtype or f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}"
        raise ValueError(f"{len(data)} bytes ({data[:8].hex()}) are not a class, which is one {kinds}")
    return classes.pop()


def _read(data: bytes, dtype: str) -> int | None:
    """The whole number that the bytes are in this format; None if they are none, or greater than any class."""
    if len(data) != np.dtype(dtype).itemsize:
        return None
    value = float(np.frombuffer(data, dtype)[0])
    return int(value) if value.is_integer() and abs(value) < _GREATEST else None


def logits_of(probabilities: Values) -> Values:
    """Logits [n, classes], but for a constant a row, from a model's softmax [n, classes + 1] with the background first.

    The reference takes the model's class minus 1, and so -1, always wrong, where the background wins. Here the
    best of the other classes answers. No weights that were trained on ImageNet's classes choose the background.
    """
    # a probability that is too small for a float32 is 0, and its logarithm is not a number to compare
    classes = np.maximum(probabilities[:, BACKGROUND:], np.finfo(np.float32).tiny)
    return np.asarray(np.log(classes), np.float32)


def are_probabilities(outputs: Values) -> bool:
    """Is each row none below 0, and 1 in sum, as what a softmax gives?"""
    return bool(outputs.min() >= 0 and np.allclose(outputs.sum(axis=-1), 1, atol=1e-3))


def check_outputs(file: Path, outputs: Values, config: ResNetConfig, *, background: bool, softmax: bool) -> None:
    """Raise InputError that names the file if a model does not give what its official namesake gives.

    outputs: its own, of some images. background: there should be one class more, the first, so that without it every
    answer would be one class off. softmax: they should be probabilities.
    """
    wanted = config.classes + BACKGROUND * background
    advice = "fetch the official file again, or put the resnet_config.json there that was written with this one"
    if outputs.ndim != 2 or outputs.shape[1] != wanted:
        extra = " and the background" if background else ""
        raise InputError(
            f"{file}: gives {list(outputs.shape)} for {len(outputs)} images, expected [n, {wanted}] "
            f"({config.classes} classes{extra}): {advice}"
        )
    if softmax and not are_probabilities(outputs):
        raise InputError(
            f"{file}: gives numbers from {outputs.min():.3g} to {outputs.max():.3g} that sum to "
            f"{outputs[0].sum():.3g} for an image, expected probabilities: {advice}"
        )
