"""Writes RetinaNet in both official formats, from sizes and numpy tensors.

Tensors go by the names of the official state dict (see `config.weight_shapes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from bench_retinanet.config import RetinaNetConfig, Tensors, check_weights
from bench_retinanet.official import ONNX, PYTORCH
from bench_retinanet.standins.format_onnx import write_onnx
from loadgen.harness.standins.making import Writer


def write_pytorch(path: Path, config: RetinaNetConfig, tensors: Tensors) -> None:
    """A training's checkpoint: a float32 state dict under the key `model`. Needs torch.

    Raises InputError as `check_weights`."""
    import torch

    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    # torch takes arrays that can be written only; others, and those of another type, are copied
    arrays = {name: np.require(value, np.float32, ["C", "W"]) for name, value in tensors.items()}
    torch.save({"model": {name: torch.from_numpy(array) for name, array in arrays.items()}, "epoch": 10}, path)


OFFICIAL: Mapping[str, Writer[[RetinaNetConfig, Tensors]]] = MappingProxyType(
    {ONNX: Writer("onnx", partial(write_onnx, batch=1)), PYTORCH: Writer("torch", write_pytorch)}
)
"""File -> how it is written: ONNX as officially for one image."""

WRITERS: Mapping[str, Writer[[RetinaNetConfig, Tensors]]] = MappingProxyType(
    {ONNX: Writer("onnx", write_onnx), PYTORCH: Writer("torch", write_pytorch)}
)
"""The same, but ONNX for any number of images."""
