"""Writes the 3D U-Net as a SavedModel, from sizes and numpy tensors."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench_3d_unet.config import Tensors, UNetConfig, check_weights
from bench_3d_unet.official import INPUT, OUTPUT, SIGNATURE


def write_tensorflow(path: Path, config: UNetConfig, tensors: Tensors) -> None:
    """`saved_model.pb` at `path` and `variables/` beside it: `serving_default` takes float32 `input` [n, 1, W, W, W]
    and gives float32 `output` [n, 3, W, W, W].

    Inside, channels come last, in which TensorFlow convolves on a CPU. Needs tensorflow. Raises InputError as
    `check_weights`.
    """
    import tensorflow as tf

    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    module = tf.Module()
    module.weights = {name: tf.Variable(_stored(name, value), name=name) for name, value in tensors.items()}
    takes = tf.TensorSpec([None, 1, *[config.window] * 3], tf.float32, name=INPUT)
    model = tf.function(lambda x: {OUTPUT: _segment(_Layers(tf, module.weights), x, config)}, input_signature=[takes])
    with TemporaryDirectory(dir=path.parent) as folder:
        tf.saved_model.save(module, folder, signatures={SIGNATURE: model})
        variables = path.parent / "variables"
        shutil.rmtree(variables, ignore_errors=True)
        (Path(folder) / "variables").rename(variables)
        (Path(folder) / "saved_model.pb").rename(path)


def _stored(name: str, value: Any) -> Any:
    """Kernels as TensorFlow has them: sides first, then inputs and outputs (of a transposed one outputs and inputs)."""
    stored = np.asarray(value, np.float32)
    return np.ascontiguousarray(stored.transpose(2, 3, 4, 1, 0) if stored.ndim == 5 else stored)


class _Layers:
    """Activations are [n, D, H, W, channels]."""

    def __init__(self, tf: Any, weights: dict[str, Any]) -> None:
        self.tf, self.weights = tf, weights

    def block(self, x: Any, name: str, stride: int = 1) -> Any:
        tf = self.tf
        for part, step in (("conv1", stride), ("conv2", 1)):
            # TensorFlow's own padding puts all of it behind where the stride is 2, PyTorch's one voxel on each side
            x = tf.pad(x, [[0, 0], *[[1, 1]] * 3, [0, 0]])
            x = tf.nn.conv3d(x, self.weights[f"{name}.{part}.0.weight"], [1, step, step, step, 1], "VALID")
            mean, variance = tf.nn.moments(x, [1, 2, 3], keepdims=True)
            scale, bias = self.weights[f"{name}.{part}.1.weight"], self.weights[f"{name}.{part}.1.bias"]
            x = tf.nn.relu((x - mean) * (tf.math.rsqrt(variance + 1e-5) * scale) + bias)
        return x

    def up(self, x: Any, skipped: Any, name: str) -> Any:
        tf = self.tf
        kernel = self.weights[f"{name}.upsample_conv.0.weight"]
        shape = tf.concat([tf.shape(skipped)[:4], [kernel.shape[3]]], 0)
        x = tf.nn.conv3d_transpose(x, kernel, shape, [1, 2, 2, 2, 1], "VALID")
        x = tf.nn.bias_add(x, self.weights[f"{name}.upsample_conv.0.bias"])
        return self.block(tf.concat([x, skipped], -1), name)


def _segment(layers: _Layers, x: Any, config: UNetConfig) -> Any:
    tf, levels = layers.tf, len(config.filters) - 1
    skipped = [layers.block(tf.transpose(x, [0, 2, 3, 4, 1]), "input_block")]
    for number in range(levels - 1):
        skipped.append(layers.block(skipped[-1], f"downsample.{number}", stride=2))
    x = layers.block(skipped[-1], "bottleneck", stride=2)
    for number in range(levels):
        x = layers.up(x, skipped.pop(), f"upsample.{number}")
    x = tf.nn.conv3d(x, layers.weights["output.conv.0.weight"], [1] * 5, "VALID")
    return tf.transpose(tf.nn.bias_add(x, layers.weights["output.conv.0.bias"]), [0, 4, 1, 2, 3])
