"""Writes ResNet-50 as a frozen TensorFlow graph, in the official form, from sizes and numpy tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_resnet50.config import NORM_EPSILON, Bottleneck, ResNetConfig, Tensors, bottlenecks, check_weights
from bench_resnet50.official import CLASSES, INPUT, PROBABILITIES

BACKGROUND_LOGIT = -100.0
"""Of the background class in files that we write: it never wins, and takes no share of the probability."""


def write_tensorflow(path: Path, config: ResNetConfig, tensors: Tensors, batch: int | None = None) -> None:
    """`resnet50_v1.pb`: float32 input_tensor:0 [batch, height, width, 3] -> softmax_tensor:0
    [batch, classes + 1] and int64 ArgMax:0 [batch], class 0 the background; a serialised GraphDef.

    batch: a fixed size; None takes any. Needs tensorflow. Raises InputError as `check_weights`.
    """
    import tensorflow as tf

    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    graph = tf.Graph()
    with graph.as_default():
        _resnet(_Layers(tf.compat.v1, tensors), config, batch)
    path.write_bytes(graph.as_graph_def().SerializeToString())


@dataclass(frozen=True)
class _Layers:
    """What the graph is made of. Borders are nodes of their own, equal on all sides, as in the original:
    TensorFlow's SAME puts less before than behind where a stride leaves a remainder."""

    v1: Any
    tensors: Tensors

    def constant(self, name: str, value: npt.NDArray[Any]) -> Any:
        return self.v1.constant(np.asarray(value, np.float32), name=name.replace(".", "/"))

    def border(self, x: Any, size: int) -> Any:
        return self.v1.pad(x, [[0, 0], [size, size], [size, size], [0, 0]]) if size else x

    def conv(self, x: Any, name: str, norm: str, stride: int = 1) -> Any:
        """A convolution and its batch normalisation."""
        kernel = self.tensors[f"{name}.weight"].transpose(2, 3, 1, 0)  # [height, width, inputs, outputs]
        x = self.border(x, kernel.shape[0] // 2)
        x = self.v1.nn.conv2d(x, self.constant(f"{name}.weight", kernel), [1, stride, stride, 1], "VALID")
        names = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        parts = [self.constant(part, self.tensors[part]) for part in names]
        return self.v1.nn.fused_batch_norm(x, *parts, epsilon=NORM_EPSILON, is_training=False)[0]


def _resnet(layers: _Layers, config: ResNetConfig, batch: int | None) -> None:
    v1, size = layers.v1, config.image
    x = v1.placeholder(v1.float32, [batch, size, size, 3], name=INPUT.removesuffix(":0"))
    x = v1.nn.relu(layers.conv(x, "conv1", "bn1", stride=2))
    # After a ReLU a border of zeros is as good as PyTorch's, which is of -inf.
    x = v1.nn.max_pool(layers.border(x, 1), [1, 3, 3, 1], [1, 2, 2, 1], "VALID")
    for block in bottlenecks(config):
        x = _bottleneck(layers, x, block)
    weight, bias = with_background(layers.tensors)
    product = v1.matmul(v1.reduce_mean(x, [1, 2]), layers.constant("fc.weight", weight.T))
    logits = v1.nn.bias_add(product, layers.constant("fc.bias", bias))
    v1.argmax(logits, axis=1, name=CLASSES.removesuffix(":0"))
    v1.nn.softmax(logits, name=PROBABILITIES.removesuffix(":0"))


def _bottleneck(layers: _Layers, x: Any, block: Bottleneck) -> Any:
    relu, name = layers.v1.nn.relu, block.name
    y = relu(layers.conv(x, f"{name}.conv1", f"{name}.bn1"))
    y = relu(layers.conv(y, f"{name}.conv2", f"{name}.bn2", block.stride))
    y = layers.conv(y, f"{name}.conv3", f"{name}.bn3")
    if block.projects:
        x = layers.conv(x, f"{name}.downsample.0", f"{name}.downsample.1", block.stride)
    return relu(y + x)


def with_background(tensors: Tensors) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weight [classes + 1, features] and bias [classes + 1] of the last layer, the background class first."""
    weight, bias = (np.asarray(tensors[f"fc.{part}"], np.float32) for part in ("weight", "bias"))
    return np.pad(weight, ((1, 0), (0, 0))), np.pad(bias, (1, 0), constant_values=BACKGROUND_LOGIT)
