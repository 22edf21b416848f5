"""The `synthetic` profile: ResNet-50 with random weights on generated JPEG files, in the official formats.

Its speed is a full-size model's; its classes mean nothing.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_resnet50.config import FILE, ResNetConfig, read_config, weight_shapes
from bench_resnet50.dataset import MAP
from bench_resnet50.standins import images
from bench_resnet50.standins.formats import WRITERS
from loadgen.harness.standins.making import find_writer, tell, write_with, writing

SEED = 1


def prepare(folder: Path) -> None:
    """Fill `folder/data`; `write_weights` makes what a backend reads. Images that are there stay, however many."""
    with writing(folder / "model"):
        if not (folder / "data" / MAP).is_file():
            tell(f"making {images.COUNT:,} JPEG files in {folder / 'data'}")
            images.write(folder / "data")


def write_weights(path: Path) -> None:
    """Random weights as the official file of that name, for the `resnet_config.json` beside it: 102 MB.

    Raises InputError for an unknown name, or a package that is not installed.
    """
    find_writer(WRITERS, path)
    config = read_config(path.parent / FILE)
    began = time.monotonic()
    write_with(WRITERS, path, config, random_tensors(config, SEED))
    tell(f"made {path}: random weights from seed {SEED}, in {time.monotonic() - began:.1f} s")


def random_tensors(config: ResNetConfig, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of every shape from a seed: no class that they choose means anything.

    But they choose many: among 1,000 generated images hundreds. Plain random weights see the same in every image,
    because what follows a ReLU is positive, and a kernel's sum times its mean swamps all differences. So kernels
    sum to 0 over their inputs, and scales keep activations near 1 and logits near 2.
    """
    rng = np.random.default_rng(seed)
    return {name: _random(name, shape, rng) for name, shape in weight_shapes(config).items()}


def _random(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    values = rng.standard_normal(shape, np.float32)
    if len(shape) == 1:  # of batch normalisation, whose scales and variances are near 1; biases are near 0
        values *= np.float32(0.03)
        positive = name.endswith((".weight", "running_var"))
        gain = 0.5 if name.endswith("bn3.weight") else 1.0  # a block adds less than it got
        return np.asarray(gain * np.exp(values) if positive else values, np.float32)
    inputs = math.prod(shape[1:])
    if name == "conv1.weight":
        return np.asarray(values / (60 * math.sqrt(inputs)), np.float32)  # 60: the deviation of pixels
    values -= values.mean(axis=1, keepdims=True)
    # a ReLU leaves (1 - 1/pi) / 2 of the variance of what is normally distributed
    gain = 2.5 if name == "fc.weight" else math.sqrt(2 / (1 - 1 / math.pi))
    return np.asarray(values * (gain / math.sqrt(inputs)), np.float32)
