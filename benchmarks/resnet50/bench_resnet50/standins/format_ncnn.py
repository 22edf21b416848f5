"""Writes ResNet-50 as ncnn's `.param` and `.bin`, in the official form, from sizes and numpy tensors.

The text file names the layers, the binary one holds their weights in the same order. Neither needs ncnn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_resnet50.config import NORM_EPSILON, Bottleneck, ResNetConfig, Tensors, bottlenecks, check_weights
from bench_resnet50.official import NCNN_INPUT, NCNN_MAGIC, NCNN_OUTPUT
from loadgen.harness.files import whole_file

_FLOAT32 = bytes(4)  # the mark before weights that are stored as plain float32


def write_ncnn(path: Path, config: ResNetConfig, tensors: Tensors) -> None:
    """`path`, the `.param` file, and first the `.bin` file beside it: in0 [3, height, width] -> out0 [classes].

    Batch normalisation is folded into the convolutions, as ncnn's own converters do it. What follows `.param`
    in a name that is not the final one is left out of the other's. Raises InputError as `check_weights`.
    """
    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    net = _Net(tensors)
    net.layer("Input", NCNN_INPUT, [])
    _resnet(net, config)
    with whole_file(path.with_name(path.name.partition(".param")[0] + ".bin")) as part:
        part.write_bytes(b"".join(net.weights))
    head = [NCNN_MAGIC, f"{len(net.lines)} {net.blobs}"]
    path.write_text("\n".join([*head, *net.lines]) + "\n")


@dataclass
class _Net:
    """Lines of the `.param` file, `type name inputs outputs names... key=value...`, and parts of the `.bin` file."""

    tensors: Tensors
    lines: list[str] = field(default_factory=list)
    weights: list[bytes] = field(default_factory=list)
    blobs: int = 0

    def layer(self, kind: str, output: str, inputs: list[str], *options: str, outputs: int = 1) -> str:
        """Add a layer that is named as its output; with more outputs they are numbered."""
        names = [output] if outputs == 1 else [f"{output}.{number}" for number in range(outputs)]
        self.lines.append(" ".join([kind, output, str(len(inputs)), str(outputs), *inputs, *names, *options]))
        self.blobs += outputs
        return output

    def conv(self, x: str, name: str, norm: str, stride: int = 1, relu: bool = False) -> str:
        """A convolution with its batch normalisation, and a ReLU if wanted."""
        weight, bias = folded(self.tensors, name, norm)
        self.weights += [_FLOAT32, weight.tobytes(), bias.tobytes()]
        outputs, _, size, _ = weight.shape
        options = [f"0={outputs}", f"1={size}", f"3={stride}", f"4={size // 2}", "5=1", f"6={weight.size}"]
        return self.layer("Convolution", name, [x], *options, *(["9=1"] if relu else []))


def folded(tensors: Tensors, name: str, norm: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weight and bias of one convolution that does what `name` and the batch normalisation `norm` do."""
    scale, shift, mean, variance = (
        tensors[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = scale / np.sqrt(variance + NORM_EPSILON)
    weight = tensors[f"{name}.weight"] * factor[:, None, None, None]
    return weight.astype(np.float32), (shift - mean * factor).astype(np.float32)


def _resnet(net: _Net, config: ResNetConfig) -> None:
    x = net.conv(NCNN_INPUT, "conv1", "bn1", stride=2, relu=True)
    x = net.layer("Pooling", "maxpool", [x], "0=0", "1=3", "2=2", "3=1", "5=1")  # 5=1: no row beyond the border
    for block in bottlenecks(config):
        x = _bottleneck(net, x, block)
    x = net.layer("Pooling", "avgpool", [x], "0=1", "4=1")  # 4=1: over the whole image
    weight, bias = (np.asarray(net.tensors[f"fc.{part}"], np.float32) for part in ("weight", "bias"))
    net.weights += [_FLOAT32, weight.tobytes(), bias.tobytes()]
    net.layer("InnerProduct", NCNN_OUTPUT, [x], f"0={len(bias)}", "1=1", f"2={weight.size}")


def _bottleneck(net: _Net, x: str, block: Bottleneck) -> str:
    name = block.name
    split = net.layer("Split", f"{name}.split", [x], outputs=2)  # a blob has one reader
    y = net.conv(f"{split}.0", f"{name}.conv1", f"{name}.bn1", relu=True)
    y = net.conv(y, f"{name}.conv2", f"{name}.bn2", block.stride, relu=True)
    y = net.conv(y, f"{name}.conv3", f"{name}.bn3")
    x = f"{split}.1"
    if block.projects:
        x = net.conv(x, f"{name}.downsample.0", f"{name}.downsample.1", block.stride)
    added = net.layer("BinaryOp", f"{name}.add", [y, x], "0=0")  # 0=0: addition
    return net.layer("ReLU", f"{name}.relu", [added])
