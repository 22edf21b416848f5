"""The sizes of a ResNet v1.5, as `resnet_config.json` holds them, and the weights that follow from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt

from loadgen.contracts import InputError
from loadgen.harness.runtimes.checkpoints import check_shapes, read_object, size

FILE = "resnet_config.json"
Tensors: TypeAlias = "Mapping[str, npt.NDArray[Any]]"
"""Weights by torchvision's names (see `weight_shapes`)."""
EXPANSION = 4
"""A bottleneck gives four times the channels that its 3x3 convolution has."""
NORM_EPSILON = 1e-5
"""Of every batch normalisation, in torchvision's model as in the official TensorFlow graph."""


@dataclass(frozen=True)
class ResNetConfig:
    """Defaults: ResNet-50 v1.5, the benchmark's model (25.557 M parameters)."""

    layers: tuple[int, ...] = (3, 4, 6, 3)
    """Bottlenecks of each stage; every stage after the first halves height and width."""
    width: int = 64
    """Channels of the stem, and of the 3x3 convolutions of the first stage; each further stage doubles them."""
    classes: int = 1000
    image: int = 224
    """Pixels of a side of the square input."""


@dataclass(frozen=True)
class Bottleneck:
    """One block: 1x1, 3x3 with the stride (v1.5), 1x1, added to its input or to a 1x1 projection of it."""

    name: str
    """Prefix of its tensors, such as `layer1.0`."""
    inputs: int
    inner: int
    outputs: int
    stride: int

    @property
    def projects(self) -> bool:
        return self.stride != 1 or self.inputs != self.outputs


def bottlenecks(config: ResNetConfig) -> Iterator[Bottleneck]:
    """Every block, in the order of computing."""
    inputs = config.width
    for stage, count in enumerate(config.layers):
        inner = config.width << stage  # twice the one before
        for number in range(count):
            stride = 2 if stage and not number else 1
            yield Bottleneck(f"layer{stage + 1}.{number}", inputs, inner, EXPANSION * inner, stride)
            inputs = EXPANSION * inner


def features(config: ResNetConfig) -> int:
    """Inputs of the last, fully connected layer: 2,048 in ResNet-50."""
    return EXPANSION * config.width << (len(config.layers) - 1)


def weight_shapes(config: ResNetConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor, under torchvision's names; convolutions are [out, in, height, width]."""
    shapes = _convolution("conv1", "bn1", 3, config.width, 7)
    for block in bottlenecks(config):
        name, inner = block.name, block.inner
        shapes |= _convolution(f"{name}.conv1", f"{name}.bn1", block.inputs, inner, 1)
        shapes |= _convolution(f"{name}.conv2", f"{name}.bn2", inner, inner, 3)
        shapes |= _convolution(f"{name}.conv3", f"{name}.bn3", inner, block.outputs, 1)
        if block.projects:
            shapes |= _convolution(f"{name}.downsample.0", f"{name}.downsample.1", block.inputs, block.outputs, 1)
    return shapes | {"fc.weight": (config.classes, features(config)), "fc.bias": (config.classes,)}


def _convolution(name: str, norm: str, inputs: int, outputs: int, side: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.weight": (outputs, inputs, side, side)} | {f"{norm}.{part}": (outputs,) for part in parts}


def write_config(path: Path, config: ResNetConfig) -> None:
    """`resnet_config.json`, beside the weights."""
    path.write_text(json.dumps(asdict(config), indent=2) + "\n")


def read_config(path: Path) -> ResNetConfig:
    """The sizes from `resnet_config.json`.

    No such file: ResNet-50, as the official weights are. Raises InputError naming the file, the key and what to do.
    """
    if not path.is_file():
        return ResNetConfig()
    document = read_object(path)
    layers = document.get("layers")
    if not isinstance(layers, list) or not layers:
        raise InputError(f"{path}: 'layers' is {layers!r}, expected a list of positive whole numbers")
    counts = tuple(size({"layers": count}, "layers", path) for count in layers)
    return ResNetConfig(counts, *(size(document, key, path) for key in ("width", "classes", "image")))


def check_weights(shapes: Mapping[str, tuple[int, ...]], config: ResNetConfig, source: str) -> None:
    """Raise InputError naming the first tensor that is missing, surplus or of another shape."""
    check_shapes(shapes, weight_shapes(config), source, FILE)
