"""Writes ResNet-50 v1.5 in every official format, from sizes and numpy tensors.

Tensors go by torchvision's names (see `config.weight_shapes`). Every writer pads as torchvision does, by half the
kernel on each side, so that all formats hold one function; the official TensorFlow and ONNX files differ from it in
where the max pooling's windows begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench_resnet50.config import NORM_EPSILON, Bottleneck, ResNetConfig, Tensors, bottlenecks, check_weights
from bench_resnet50.official import BACKGROUND, CLASSES, INPUT, NCNN, ONNX, PROBABILITIES, PYTORCH, TENSORFLOW
from bench_resnet50.standins.format_ncnn import write_ncnn
from bench_resnet50.standins.format_tensorflow import with_background, write_tensorflow
from loadgen.harness.standins.making import Writer

if TYPE_CHECKING:
    from onnx import GraphProto

OPSET = 11
"""As the official ONNX file."""
_IR_VERSION = 6  # the one of opset 11, so that older runtimes read the file too


def write_pytorch(path: Path, config: ResNetConfig, tensors: Tensors) -> None:
    """A float32 state dict with torchvision's names. Needs torch. Raises InputError as `check_weights`."""
    import torch

    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    # torch takes arrays that can be written only; others, and those of another type, are copied
    arrays = {name: np.require(value, np.float32, ["C", "W"]) for name, value in tensors.items()}
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)


def write_onnx(path: Path, config: ResNetConfig, tensors: Tensors, batch: int | None = None) -> None:
    """float32 `input_tensor:0` [batch, 3, H, W] -> int64 `ArgMax:0` [batch], float32 `softmax_tensor:0`
    [batch, classes + 1], the background first.

    batch: a fixed size; None takes any. Needs onnx, not torch. Raises InputError as `check_weights`.
    """
    import onnx
    from onnx import TensorProto, helper

    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    count = batch or "batch"
    image = [count, 3, config.image, config.image]
    answers = [
        helper.make_tensor_value_info(CLASSES, TensorProto.INT64, [count]),
        helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [count, config.classes + BACKGROUND]),
    ]
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, image)]
    opset = helper.make_opsetid("", OPSET)
    empty = helper.make_graph([], "resnet50_v1", inputs, answers)
    model = helper.make_model(empty, opset_imports=[opset], ir_version=_IR_VERSION)
    _classify(_Graph(model.graph, tensors), config)
    onnx.save_model(model, str(path))


WRITERS: Mapping[str, Writer[[ResNetConfig, Tensors]]] = MappingProxyType(
    {
        ONNX: Writer("onnx", write_onnx),
        PYTORCH: Writer("torch", write_pytorch),
        TENSORFLOW: Writer("tensorflow", write_tensorflow),
        NCNN: Writer("ncnn", write_ncnn),
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

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def convolution(self, x: str, name: str, norm: str, stride: int = 1) -> str:
        """With batch normalisation, which runtimes fold into the weights."""
        kernel = self.constant(f"{name}.weight", self.tensors[f"{name}.weight"])
        size = self.tensors[f"{name}.weight"].shape[-1]
        x = self.node("Conv", x, kernel, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)
        parts = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        parts = [self.constant(part, self.tensors[part]) for part in parts]
        return self.node("BatchNormalization", x, *parts, epsilon=NORM_EPSILON)


def _classify(graph: _Graph, config: ResNetConfig) -> None:
    x = graph.node("Relu", graph.convolution(INPUT, "conv1", "bn1", stride=2))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for block in bottlenecks(config):
        x = _bottleneck(graph, x, block)
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    weight, bias = with_background(graph.tensors)
    x = graph.node("Gemm", x, graph.constant("fc.weight", weight), graph.constant("fc.bias", bias), transB=1)
    graph.node("ArgMax", x, axis=1, keepdims=0, output=CLASSES)
    graph.node("Softmax", x, axis=1, output=PROBABILITIES)


def _bottleneck(graph: _Graph, x: str, block: Bottleneck) -> str:
    name = block.name
    inner = graph.node("Relu", graph.convolution(x, f"{name}.conv1", f"{name}.bn1"))
    inner = graph.node("Relu", graph.convolution(inner, f"{name}.conv2", f"{name}.bn2", stride=block.stride))
    inner = graph.convolution(inner, f"{name}.conv3", f"{name}.bn3")
    if block.projects:
        x = graph.convolution(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=block.stride)
    return graph.node("Relu", graph.node("Add", inner, x))
