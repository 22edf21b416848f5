"""The `synthetic` profile: RetinaNet with random weights on generated JPEG files, in the official formats.

Its speed is a full-size model's; what it detects means nothing.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_retinanet.config import FILE, RetinaNetConfig, read_config, weight_shapes
from bench_retinanet.official import ANNOTATIONS
from bench_retinanet.standins import images
from bench_retinanet.standins.formats import OFFICIAL
from loadgen.harness.standins.making import find_writer, tell, write_with, writing

SEED = 1
_LIVE = 64
"""One in so many outputs of the classes' last layer may detect; the others never do."""
_BIAS, _DEAD = -7.0, -15.0
"""Of those outputs, whose other part deviates by about 1: of an image's 31.7 million scores some 100 pass the
threshold, as measured."""


def prepare(folder: Path) -> None:
    """Fill `folder/data`; `write_weights` makes what a backend reads. Images that are there stay, however many."""
    with writing(folder / "model"):
        if not (folder / "data" / ANNOTATIONS).is_file():
            tell(f"making {images.COUNT:,} JPEG files in {folder / 'data'}")
            images.write(folder / "data")


def write_weights(path: Path) -> None:
    """Random weights as the official file of that name, for the `retinanet_config.json` beside it: 149 MB.

    Raises InputError for an unknown name, or a package that is not installed.
    """
    find_writer(OFFICIAL, path)
    config = read_config(path.parent / FILE)
    began = time.monotonic()
    write_with(OFFICIAL, path, config, random_tensors(config, SEED))
    tell(f"made {path}: random weights from seed {SEED}, in {time.monotonic() - began:.1f} s")


def random_tensors(config: RetinaNetConfig, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of every shape from a seed, which detect in every image some boxes, and not everywhere.

    Plain random weights see the same in every image, because what follows a ReLU is positive, and a kernel's sum times
    its mean swamps all differences. So kernels sum to 0 over their inputs, and scales keep activations near 1.
    """
    rng = np.random.default_rng(seed)
    return {name: _random(name, shape, rng) for name, shape in weight_shapes(config).items()}


def _random(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    values = rng.standard_normal(shape, np.float32)
    if name == "head.classification_head.cls_logits.bias":
        return np.where(rng.random(shape) < 1 / _LIVE, _BIAS, _DEAD).astype(np.float32)
    if len(shape) == 1:  # of batch normalisation, whose scales and variances are near 1; biases are near 0
        values *= np.float32(0.03)
        positive = ".bn" in name or "downsample" in name
        if positive and name.endswith((".weight", "running_var")):
            gain = 0.5 if name.endswith("bn3.weight") else 1.0  # a block adds less than it got
            return np.asarray(gain * np.exp(values), np.float32)
        return values
    if shape[1] > 3:
        values -= values.mean(axis=1, keepdims=True)
    return np.asarray(values * (_gain(name) / math.sqrt(math.prod(shape[1:]))), np.float32)


def _gain(name: str) -> float:
    """By how much a kernel's outputs deviate if its inputs do by 1."""
    if "inner_blocks" in name:  # a stage's outputs have grown with each of its blocks
        return 0.14
    signed = "layer_blocks" in name or "extra_blocks" in name or ("head." in name and ".conv.0." in name)
    return (1.0 if signed else _RECTIFIED) * (0.3 if "bbox_reg" in name else 1.0)


_RECTIFIED = math.sqrt(2 / (1 - 1 / math.pi))
"""A ReLU leaves (1 - 1/pi) / 2 of the variance of what is normally distributed."""
