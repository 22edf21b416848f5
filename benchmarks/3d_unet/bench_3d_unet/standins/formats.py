"""Writes the 3D U-Net in every official format, from sizes and numpy tensors.

Tensors go by their names in the official checkpoint (see `config.weight_shapes`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bench_3d_unet.config import Tensors, UNetConfig, check_weights
from bench_3d_unet.official import (
    CHECKPOINT,
    CHECKPOINT_KEY,
    CLASSES,
    INPUT,
    ONNX,
    ONNX_ONE,
    OUTPUT,
    SAVED_MODEL,
    TORCHSCRIPT,
)
from bench_3d_unet.standins.format_tensorflow import write_tensorflow
from loadgen.harness.standins.making import Writer

if TYPE_CHECKING:
    from onnx import GraphProto

OPSET = 12
"""As the official files."""
_IR_VERSION = 7  # the one of opset 12, so that older runtimes read the file too


def write_checkpoint(path: Path, config: UNetConfig, tensors: Tensors) -> None:
    """A float32 state dict in a dict, as training left it. Needs torch. Raises InputError as `check_weights`."""
    import torch

    torch.save({CHECKPOINT_KEY: _state(config, tensors)}, path)


def write_torchscript(path: Path, config: UNetConfig, tensors: Tensors) -> None:
    """The model and its weights as a TorchScript archive. Needs torch. Raises InputError as `check_weights`."""
    import torch

    from bench_3d_unet.model import UNet

    model = UNet(config)
    model.load_state_dict(_state(config, tensors))
    window = torch.zeros(1, 1, *[2 ** len(config.filters)] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch would rather have its newer format, and looks at every condition
        traced: Any = torch.jit.trace(model.eval(), window)  # type: ignore[no-untyped-call]
        traced.save(str(path))


def _state(config: UNetConfig, tensors: Tensors) -> dict[str, Any]:
    import torch

    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    # torch takes arrays that can be written only; others, and those of another type, are copied
    arrays = {name: np.require(value, np.float32, ["C", "W"]) for name, value in tensors.items()}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def write_onnx(path: Path, config: UNetConfig, tensors: Tensors, batch: int | None = None) -> None:
    """float32 `input` [batch, 1, W, W, W] -> float32 `output` [batch, 3, W, W, W].

    batch: a fixed size; None takes any. Needs onnx, not torch. Raises InputError as `check_weights`.
    """
    import onnx
    from onnx import TensorProto, helper

    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    sides = [config.window] * 3
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch or "batch_size", channels, *sides])]
        for name, channels in ((INPUT, 1), (OUTPUT, len(CLASSES)))
    )
    empty = helper.make_graph([], "unet3d", inputs, outputs)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(empty, opset_imports=[opset], ir_version=_IR_VERSION)
    _segment(_Graph(model.graph, tensors), config)
    onnx.save_model(model, str(path))


def write_onnx_one(path: Path, config: UNetConfig, tensors: Tensors) -> None:
    """As `write_onnx`, for one window at a time."""
    write_onnx(path, config, tensors, batch=1)


WRITERS: Mapping[str, Writer[[UNetConfig, Tensors]]] = MappingProxyType(
    {
        ONNX: Writer("onnx", write_onnx),
        ONNX_ONE: Writer("onnx", write_onnx_one),
        CHECKPOINT: Writer("torch", write_checkpoint),
        TORCHSCRIPT: Writer("torch", write_torchscript),
        Path(SAVED_MODEL).name: Writer("tensorflow", write_tensorflow),
    }
)
"""File -> how it is written."""


class _Graph:
    """Adds nodes and constants to a `GraphProto`; every method gives the name of its result."""

    def __init__(self, graph: GraphProto, tensors: Tensors) -> None:
        self.graph, self.tensors = graph, tensors

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"{operator}_{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def weight(self, name: str) -> str:
        from onnx import numpy_helper

        value = np.ascontiguousarray(self.tensors[name], np.float32)
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def block(self, x: str, name: str, stride: int = 1) -> str:
        for part, step in (("conv1", stride), ("conv2", 1)):
            kernel = self.weight(f"{name}.{part}.0.weight")
            x = self.node("Conv", x, kernel, kernel_shape=[3] * 3, strides=[step] * 3, pads=[1] * 6)
            scale, bias = self.weight(f"{name}.{part}.1.weight"), self.weight(f"{name}.{part}.1.bias")
            x = self.node("Relu", self.node("InstanceNormalization", x, scale, bias, epsilon=1e-5))
        return x

    def up(self, x: str, skipped: str, name: str) -> str:
        weights = (self.weight(f"{name}.upsample_conv.0.{part}") for part in ("weight", "bias"))
        x = self.node("ConvTranspose", x, *weights, kernel_shape=[2] * 3, strides=[2] * 3)
        return self.block(self.node("Concat", x, skipped, axis=1), name)


def _segment(graph: _Graph, config: UNetConfig) -> None:
    levels = len(config.filters) - 1
    skipped = [graph.block(INPUT, "input_block")]
    for number in range(levels - 1):
        skipped.append(graph.block(skipped[-1], f"downsample.{number}", stride=2))
    x = graph.block(skipped[-1], "bottleneck", stride=2)
    for number in range(levels):
        x = graph.up(x, skipped.pop(), f"upsample.{number}")
    weights = (graph.weight(f"output.conv.0.{part}") for part in ("weight", "bias"))
    graph.node("Conv", x, *weights, output=OUTPUT, kernel_shape=[1] * 3)
