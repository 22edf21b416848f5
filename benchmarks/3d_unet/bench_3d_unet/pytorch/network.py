"""The 3D U-Net as the kernels of `kernels.cu` compute it, in 16 bits.

A convolution leaves its sums as they are, together with the moments that the normalisation after it needs; the next
layer normalises and rectifies what it reads. So nothing is written but what convolutions leave, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from bench_3d_unet.model import Block, UNet, Up
from bench_3d_unet.official import CLASSES
from loadgen.harness.runtimes.cuda import Kernels

Launch: TypeAlias = Callable[..., None]
"""See `loadgen.harness.runtimes.cuda.Kernels.launch`."""
SOURCE = Path(__file__).with_name("kernels.cu")
_SHARED = {"convolve": 6 * 10 * 18 * 64, "descend": 5 * 9 * 34 * 64}
"""Bytes of shared memory of a block: the voxels that a tile of 4 x 8 x 16 or 2 x 4 x 16 outputs needs, 32 channels of
each in 16 bits."""
_SIDE = 16
"""Voxels of the longest side of a tile; levels whose side is no multiple of it are computed without tiles."""


class Activation(NamedTuple):
    """What a layer leaves."""

    values: Tensor
    """[n, depth, height, width, channels]"""
    affine: Tensor | None
    """[n, channels, 2]: the factor and summand by which its reader normalises, and rectifies then."""


@dataclass(frozen=True)
class Convolution:
    """With the normalisation that follows."""

    weights: Tensor
    outputs: int
    stride: int
    kernel: str
    norm: nn.InstanceNorm3d


def launcher(device: torch.device, dtype: torch.dtype) -> Launch:
    """Of the kernels for this number format, compiled. Raises RuntimeError with the compiler's message."""
    return Kernels(SOURCE, device, {"IS_BF16": int(dtype == torch.bfloat16)}).launch


def fits(model: UNet, window: int) -> bool:
    """Are channels whole chunks of 32, and the finest level whole tiles?"""
    levels = [model.input_block, *model.downsample, model.bottleneck]
    channels = [level.get_parameter("conv2.1.weight").numel() for level in levels]
    return not any(count % 32 for count in channels) and window % _SIDE == 0


class Network:
    """Windows [n, 1, W, W, W] -> logits float32 [n, 3, W, W, W], on the device of the model's weights."""

    def __init__(self, model: UNet, window: int, launch: Launch) -> None:
        """The model's filters and window fit. Its weights are copied in the kernels' order."""
        self._launch = launch
        sides = [window >> level for level in range(len(model.downsample) + 2)]
        self._first = _convolution(model.input_block.conv1, window)
        self._second = _convolution(model.input_block.conv2, window)
        blocks = [*model.downsample, model.bottleneck]
        self._down = [_block(block, side) for block, side in zip(blocks, sides[1:], strict=True)]
        self._up = [_block(block, side) for block, side in zip(model.upsample, sides[-2::-1], strict=True)]
        self._rises = [_rise(block) for block in model.upsample]
        last = dict(model.output.named_parameters())
        self._last = last["conv.0.weight"].float().reshape(len(CLASSES), -1), last["conv.0.bias"].float()

    def __call__(self, windows: Tensor) -> Tensor:
        x = self._convolved(self._second, self._entered(windows))
        skipped = [x]
        for first, second in self._down:
            x = self._convolved(second, self._convolved(first, x))
            skipped.append(x)
        skipped.pop()
        for (first, second), (weights, bias) in zip(self._up, self._rises, strict=True):
            risen = self._risen(x, weights, bias)
            x = self._convolved(second, self._convolved(first, risen, skipped.pop()))
        return self._left(x)

    def _entered(self, windows: Tensor) -> Activation:
        layer, (n, _, *sides) = self._first, windows.shape
        tiles = _tiles(layer.kernel, sides)
        values, moments = self._room(windows, n, sides, layer, tiles)
        grid = (tiles * layer.outputs // 32, n)
        self._launch("enter", grid, windows, layer.weights, values, moments, layer.outputs, *sides)
        return self._settled(layer, values, moments)

    def _convolved(self, layer: Convolution, first: Activation, second: Activation | None = None) -> Activation:
        n, *sides, channels = first.values.shape
        sides = [side // layer.stride for side in sides]
        more, affine = second or (None, None)
        tiles = _tiles(layer.kernel, sides)
        values, moments = self._room(first.values, n, sides, layer, tiles)
        chunks, every = channels // 32, (channels + (0 if more is None else more.shape[-1])) // 32
        blocks = layer.outputs // 32
        read: list[Tensor | None] = [*first, more, affine, layer.weights]
        rest, grid = [chunks, every, layer.outputs, *sides], (tiles * blocks, n)
        if layer.kernel == "descend":  # reads one input, and computes two blocks of outputs at once
            read, rest, grid = [*first, layer.weights], rest[1:], (tiles * -(-blocks // 2), n)
        elif layer.kernel == "gather":
            rest.append(layer.stride)
        self._launch(layer.kernel, grid, *read, values, moments, *rest, shared=_SHARED.get(layer.kernel, 0))
        return self._settled(layer, values, moments)

    def _room(self, like: Tensor, n: int, sides: list[int], layer: Convolution, tiles: int) -> tuple[Tensor, Tensor]:
        moments = like.new_empty((n, tiles, layer.outputs, 2), dtype=torch.float32)
        return like.new_empty((n, *sides, layer.outputs)), moments

    def _settled(self, layer: Convolution, values: Tensor, moments: Tensor) -> Activation:
        n, tiles, channels, _ = moments.shape
        affine = moments.new_empty((n, channels, 2))
        voxels = float(values[0, ..., 0].numel())
        norm = layer.norm
        given = (moments, norm.weight, norm.bias, affine, tiles, channels, voxels, norm.eps)
        self._launch("settle", (channels // 32, n), *given, threads=1024)
        return Activation(values, affine)

    def _risen(self, x: Activation, weights: Tensor, bias: Tensor) -> Activation:
        n, *sides, channels = x.values.shape
        outputs = len(bias)
        values = x.values.new_empty((n, *(2 * side for side in sides), outputs))
        grid = (-(-math.prod(sides) // 128) * outputs // 32, n)
        held = channels // 32 * 4 * 128 * 16  # bytes that 128 threads hold of the inputs
        self._launch("rise", grid, *x, weights, bias, values, channels // 32, outputs, *sides, shared=held)
        return Activation(values, None)

    def _left(self, x: Activation) -> Tensor:
        n, *sides, channels = x.values.shape
        voxels = math.prod(sides)
        logits = x.values.new_empty((n, len(CLASSES), *sides), dtype=torch.float32)
        self._launch("leave", (-(-voxels // 256), n), *x, *self._last, logits, channels, voxels)
        return logits


def _tiles(kernel: str, sides: Sequence[int]) -> int:
    """How many a kernel cuts a volume into; each has moments of its own."""
    return math.prod(sides) // {"gather": 32, "descend": 128}.get(kernel, 512)


def _block(block: nn.Module, side: int) -> tuple[Convolution, Convolution]:
    assert isinstance(block, (Block, Up))
    return _convolution(block.conv1, side), _convolution(block.conv2, side)


def _convolution(layer: nn.Sequential, side: int) -> Convolution:
    """side: of the outputs."""
    convolution, norm = layer[0], layer[1]
    assert isinstance(convolution, nn.Conv3d)
    assert isinstance(norm, nn.InstanceNorm3d)
    outputs, inputs = convolution.weight.shape[:2]
    stride, tiled = convolution.stride[0], side % _SIDE == 0
    kernel = "enter" if inputs == 1 else ("convolve" if stride == 1 else "descend") if tiled else "gather"
    taps = convolution.weight.permute(2, 3, 4, 1, 0)  # [depth, height, width, inputs, outputs]
    if kernel == "enter":
        weights = by_threads(nn.functional.pad(taps.reshape(27, outputs), (0, 0, 0, 5)))
    elif kernel == "gather":
        weights = by_threads(taps.reshape(27, inputs, outputs))
    else:
        taps = taps.transpose(1, 2) if kernel == "convolve" else taps  # it goes through those of height last
        weights = by_rows(taps.reshape(27, inputs, outputs))
    copied = nn.InstanceNorm3d(outputs, norm.eps, affine=True, device=taps.device)
    copied.load_state_dict({name: value.float() for name, value in norm.state_dict().items()})
    return Convolution(weights, outputs, stride, kernel, copied.requires_grad_(False))


def _rise(block: nn.Module) -> tuple[Tensor, Tensor]:
    """Weights and bias of the transposed convolution."""
    layer = dict(block.named_parameters())
    weight, bias = layer["upsample_conv.0.weight"], layer["upsample_conv.0.bias"]
    inputs, outputs = weight.shape[:2]
    return by_threads(weight.permute(2, 3, 4, 0, 1).reshape(8, inputs, outputs)), bias.float()


def by_rows(weights: Tensor) -> Tensor:
    """[taps, inputs, outputs] in the order in which `convolve`'s threads read them: outputs and inputs in chunks of
    32, taps, halves of the inputs, pairs of products, threads, products, halves of a product's inputs, two inputs.

    A thread's eighth of the inputs is that of the matrices that `ldmatrix` distributes."""
    return _ordered(weights, ("half", "part", "thread", "input"))


def by_threads(weights: Tensor) -> Tensor:
    """The same for threads that hold 8 inputs side by side."""
    return _ordered(weights if weights.ndim == 3 else weights[None], ("thread", "half", "part", "input"))


def _ordered(weights: Tensor, inputs: tuple[str, ...]) -> Tensor:
    sizes = {"half": 2, "part": 2, "thread": 4, "input": 2}
    taps, wide, outputs = weights.shape
    split = weights.reshape(taps, wide // 32, *(sizes[name] for name in inputs), outputs // 32, 4, 2, 2, 2)
    axis = {name: 2 + at for at, name in enumerate(inputs)}
    block, quarter, pair, product, output = range(6, 11)
    order = (block, 1, 0, axis["half"], pair, quarter, output, axis["thread"], product, axis["part"], axis["input"])
    return split.permute(order).contiguous()
