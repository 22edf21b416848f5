"""The sizes of a 3D U-Net, as `3d_unet.json` beside the weights holds them, and the weights that follow from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt

from bench_3d_unet.official import CLASSES
from loadgen.contracts import InputError
from loadgen.harness.runtimes.checkpoints import check_shapes, read_object, size

FILE = "3d_unet.json"
Tensors: TypeAlias = "Mapping[str, npt.NDArray[Any]]"
"""By their names in the official checkpoint (see `weight_shapes`)."""


@dataclass(frozen=True)
class UNetConfig:
    """Defaults: the benchmark's model (31.2 M parameters)."""

    filters: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    """Channels of each level, the finest first; the last is the bottleneck."""
    window: int = 128
    """Voxels of a side of the cube that the model sees at once; halved from level to level."""


def write_config(path: Path, config: UNetConfig) -> None:
    """`3d_unet.json`."""
    path.write_text(json.dumps(asdict(config), indent=2) + "\n")


def read_config(path: Path) -> UNetConfig:
    """The sizes. No such file: the benchmark's, as the official weights are.

    Raises InputError naming the file, the key and what to do.
    """
    if not path.is_file():
        return UNetConfig()
    document = read_object(path)
    filters = document.get("filters")
    if not isinstance(filters, list) or len(filters) < 3:
        raise InputError(f"{path}: 'filters' is {filters!r}, expected a list of channels of three levels or more")
    numbered = {f"filters[{level}]": value for level, value in enumerate(filters)}
    config = UNetConfig(tuple(size(numbered, key, path) for key in numbered), size(document, "window", path))
    coarsest = 2 ** (len(filters) - 1)
    if config.window % (2 * coarsest):
        raise InputError(
            f"{path}: a window of {config.window} cannot be halved {len(filters) - 1} times to an even side: "
            f"use a multiple of {2 * coarsest}, or fewer filters"
        )
    return config


def weight_shapes(config: UNetConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of the official checkpoint: 78 of the benchmark's model."""
    filters = config.filters
    down = [f"downsample.{number}" for number in range(len(filters) - 2)]
    shapes = _block("input_block", 1, filters[0])
    for name, (inputs, outputs) in zip([*down, "bottleneck"], pairwise(filters), strict=True):
        shapes |= _block(name, inputs, outputs)
    for number, (inputs, outputs) in enumerate(pairwise(reversed(filters))):
        name = f"upsample.{number}"
        shapes[f"{name}.upsample_conv.0.weight"] = (inputs, outputs, 2, 2, 2)
        shapes[f"{name}.upsample_conv.0.bias"] = (outputs,)
        shapes |= _block(name, 2 * outputs, outputs)  # of what comes up and what was skipped
    shapes["output.conv.0.weight"] = (len(CLASSES), filters[0], 1, 1, 1)
    shapes["output.conv.0.bias"] = (len(CLASSES),)
    return shapes


def _block(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Two convolutions without a bias, each with its instance normalisation."""
    shapes: dict[str, tuple[int, ...]] = {}
    for part, width in (("conv1", inputs), ("conv2", outputs)):
        shapes[f"{name}.{part}.0.weight"] = (outputs, width, 3, 3, 3)
        shapes[f"{name}.{part}.1.weight"] = shapes[f"{name}.{part}.1.bias"] = (outputs,)
    return shapes


def check_weights(shapes: Mapping[str, tuple[int, ...]], config: UNetConfig, source: str) -> None:
    """Raise InputError naming the first tensor that is missing, surplus or of another shape."""
    check_shapes(shapes, weight_shapes(config), source, FILE)
