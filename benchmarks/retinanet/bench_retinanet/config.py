"""The sizes of a RetinaNet on a ResNeXt, as `retinanet_config.json` holds them, and the weights that follow from them.

Tensors go by the names of the official state dict (`retinanet_model_10.pth`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt

from loadgen.contracts import InputError
from loadgen.harness.runtimes.checkpoints import check_shapes, read_object, size

FILE = "retinanet_config.json"
Tensors: TypeAlias = "Mapping[str, npt.NDArray[Any]]"
"""Weights by the official names (see `weight_shapes`)."""
EXPANSION = 4
"""A stage's outputs are so many times as wide as in a network without bottlenecks."""
NORM_EPSILON = 1e-5
"""Of every batch normalisation, which is frozen."""
ANCHORS = 9
"""Of each location: three shapes in three sizes."""
LEVELS = 5
"""Of the pyramid: three from the backbone's last stages, and two more, each of half the size of the one before."""
HEADS = {"classification_head": "cls_logits", "regression_head": "bbox_reg"}
"""Head -> its last layer."""


@dataclass(frozen=True)
class RetinaNetConfig:
    """Defaults: the benchmark's model on a ResNeXt50-32x4d (37.06 M parameters)."""

    layers: tuple[int, ...] = (3, 4, 6, 3)
    """Bottlenecks of each stage; every stage after the first halves height and width."""
    stem: int = 64
    """Channels of the first convolution; the first stage gives four times as many, each further stage twice those."""
    inner: int = 128
    """Channels between a bottleneck's 1x1 convolutions in the first stage; each further stage doubles them."""
    groups: int = 32
    """Of each 3x3 convolution in a bottleneck."""
    channels: int = 256
    """Of the pyramid and the heads."""
    convolutions: int = 4
    """Of each head, before its last layer."""
    classes: int = 264
    image: int = 800
    """Pixels of a side of the square input."""
    anchor: int = 32
    """Side in pixels of the smallest anchor of the finest level; each further level doubles it."""


@dataclass(frozen=True)
class Bottleneck:
    """One block: 1x1, 3x3 in groups with the stride, 1x1, added to its input or to a 1x1 projection of it."""

    name: str
    """Prefix of its tensors, such as `backbone.body.layer1.0`."""
    inputs: int
    inner: int
    outputs: int
    stride: int
    projects: bool


def bottlenecks(config: RetinaNetConfig) -> Iterator[Bottleneck]:
    """Every block, in the order of computing. The first of each stage projects."""
    inputs = config.stem
    for stage, count in enumerate(config.layers):
        inner, outputs = config.inner << stage, EXPANSION * config.stem << stage
        for number in range(count):
            stride = 2 if stage and not number else 1
            name = f"backbone.body.layer{stage + 1}.{number}"
            yield Bottleneck(name, inputs, inner, outputs, stride, projects=not number)
            inputs = outputs


def stage_outputs(config: RetinaNetConfig) -> list[int]:
    """Channels of the last three stages, which the pyramid reads."""
    return [EXPANSION * config.stem << stage for stage in range(len(config.layers))][-3:]


def grids(config: RetinaNetConfig) -> list[int]:
    """Locations along a side of each level: 100, 50, 25, 13 and 7 in the benchmark's model."""
    sides = [config.image]
    for _ in range(len(config.layers) - 2 + LEVELS):  # first the stem, the pooling and stages before the pyramid's
        sides.append(-(-sides[-1] // 2))
    return sides[-LEVELS:]


def weight_shapes(config: RetinaNetConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor; convolutions are [out, in / groups, height, width]."""
    body = "backbone.body"
    shapes = _normalised(f"{body}.conv1", f"{body}.bn1", (config.stem, 3, 7, 7))
    for block in bottlenecks(config):
        name, inner = block.name, block.inner
        shapes |= _normalised(f"{name}.conv1", f"{name}.bn1", (inner, block.inputs, 1, 1))
        shapes |= _normalised(f"{name}.conv2", f"{name}.bn2", (inner, inner // config.groups, 3, 3))
        shapes |= _normalised(f"{name}.conv3", f"{name}.bn3", (block.outputs, inner, 1, 1))
        if block.projects:
            kernel = (block.outputs, block.inputs, 1, 1)
            shapes |= _normalised(f"{name}.downsample.0", f"{name}.downsample.1", kernel)
    return shapes | _pyramid_shapes(config) | _head_shapes(config)


def _normalised(name: str, norm: str, kernel: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.weight": kernel} | {f"{norm}.{part}": kernel[:1] for part in parts}


def _biased(name: str, outputs: int, inputs: int, side: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}


def _pyramid_shapes(config: RetinaNetConfig) -> dict[str, tuple[int, ...]]:
    width, fpn = config.channels, "backbone.fpn"
    shapes: dict[str, tuple[int, ...]] = {}
    for level, inputs in enumerate(stage_outputs(config)):
        shapes |= _biased(f"{fpn}.inner_blocks.{level}", width, inputs, 1)
        shapes |= _biased(f"{fpn}.layer_blocks.{level}", width, width, 3)
    for name in ("p6", "p7"):
        shapes |= _biased(f"{fpn}.extra_blocks.{name}", width, width, 3)
    return shapes


def head_outputs(config: RetinaNetConfig) -> dict[str, int]:
    """Head -> channels of its last layer."""
    return {"classification_head": ANCHORS * config.classes, "regression_head": ANCHORS * 4}


def _head_shapes(config: RetinaNetConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for head, outputs in head_outputs(config).items():
        for number in range(config.convolutions):  # the rectifiers between them have the odd numbers
            shapes |= _biased(f"head.{head}.conv.{2 * number}", config.channels, config.channels, 3)
        shapes |= _biased(f"head.{head}.{HEADS[head]}", outputs, config.channels, 3)
    return shapes


def write_config(path: Path, config: RetinaNetConfig) -> None:
    """`retinanet_config.json`, beside the weights."""
    path.write_text(json.dumps(asdict(config), indent=2) + "\n")


def read_config(path: Path) -> RetinaNetConfig:
    """The sizes from `retinanet_config.json`.

    No such file: the benchmark's model, as the official weights are. Raises InputError naming the file, the key and
    what to do.
    """
    if not path.is_file():
        return RetinaNetConfig()
    document = read_object(path)
    layers = document.get("layers")
    if not isinstance(layers, list) or len(layers) < 3:
        raise InputError(f"{path}: 'layers' is {layers!r}, expected a list of three or more positive whole numbers")
    counts = tuple(size({"layers": count}, "layers", path) for count in layers)
    names = [name for name in asdict(RetinaNetConfig()) if name != "layers"]
    return RetinaNetConfig(counts, **{name: size(document, name, path) for name in names})


def check_weights(shapes: Mapping[str, tuple[int, ...]], config: RetinaNetConfig, source: str) -> None:
    """Raise InputError naming the first tensor that is missing, surplus or of another shape."""
    check_shapes(shapes, weight_shapes(config), source, FILE)
