"""ResNet-50 in 16 bits on an NVIDIA GPU, in as few passes over its activations as possible.

Writing and reading activations between convolutions, 49 MB an image at 3 to 4.5 TB/s, takes longer than the arithmetic.
So biases, ReLUs and sums are parts of the convolutions. Where activations are largest, kernels of ours do several steps
at once: all to the first bottleneck's first convolution, and in the first two stages all of a bottleneck but its first
convolution, together with the first of the next one. The rest is cuDNN's.
"""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench_resnet50 import backend_pytorch_kernels as kernels
from bench_resnet50.model import Bottleneck, Joint, ResNet, blocked


class Fused:
    """A folded `ResNet` of width 64 and several stages, on a GPU: a `backend_pytorch_gpu.Network`."""

    def __init__(self, model: ResNet, image: int) -> None:
        self._side = image // 2
        blocks = [block for block in model.modules() if isinstance(block, Bottleneck)]
        stem = blocked(model.conv1.weight).permute(2, 3, 1, 0).flatten(0, 2).contiguous()
        self._entry = stem, _bias(model.conv1), _matrix(blocks[0].conv1), _bias(blocks[0].conv1)
        self._steps = [_step(block, after) for block, after in zip_longest(blocks, blocks[1:])]
        self._fc = model.fc

    def buffer(self, count: int) -> Tensor:
        """For images as blocks of 2x2 pixels: zeros [count, H/2 + 3, W/2 + 3, 16]; the border stays zero."""
        side = self._side + 3
        return self._fc.weight.new_zeros((count, side, side, kernels.CHANNELS))

    def fill(self, buffer: Tensor, images: Tensor, mean: Tensor, scale: Tensor) -> None:
        kernels.fill(images, mean, scale, buffer)

    def __call__(self, buffer: Tensor) -> Tensor:
        """Logits [count, classes]."""
        pooled, following = kernels.entry(buffer, *self._entry)
        x = _images(pooled, len(buffer))
        h: Tensor | None = _images(following, len(buffer))
        for step in self._steps:
            x, h = _computed(step, x, _convolved(step.block.conv1, x) if h is None else h)
        logits: Tensor = self._fc(x.mean((2, 3)))
        return logits


def _projection(block: Bottleneck) -> list[nn.Conv2d]:
    """The convolution of the block's input, if it has one."""
    return [layer for layer in block.downsample.modules() if isinstance(layer, nn.Conv2d)]


class _Step(NamedTuple):
    """A bottleneck, and what is needed to compute it."""

    block: Bottleneck
    bias: Tensor
    """Of the expansion and the projection."""
    joint: Joint | None
    """For our kernel; None: only cuDNN computes it."""
    fewest: int
    """Images that our kernel is for."""
    quarter: bool
    """Of what our kernel adds up, the next block wants every second pixel of every second row only."""


def _step(block: Bottleneck, after: Bottleneck | None) -> _Step:
    bias, convolution = _bias(block.conv3, *_projection(block)), block.conv2
    if after is None or convolution.stride != (1, 1):
        return _Step(block, bias, None, 0, False)
    fewest = kernels.fewest(convolution.out_channels, convolution.weight.device)
    joint = _joint(block, after) if fewest else None
    return _Step(block, bias, joint, fewest or 0, after.conv2.stride == (2, 2))


def _computed(step: _Step, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
    """(sum, what the next block's first convolution makes of it, if it is known).

    x: the block's input, or only the pixels of it that are added; h: what its first convolution made of it.
    """
    block, count = step.block, len(x)
    if step.joint and count >= step.fewest:
        total, following = kernels.block(_rows(h), _rows(x), h.shape[-1], step.joint, step.quarter)
        return _images(total, count), _images(following, count)
    middle = _convolved(block.conv2, h)
    projection = _projection(block)
    added = F.conv2d(x, projection[0].weight, stride=x.shape[-1] // middle.shape[-1]) if projection else x
    return _convolved_and_added(block.conv3, middle, added, step.bias), None


def _joint(block: Bottleneck, after: Bottleneck) -> Joint:
    projection = _projection(block)
    return Joint(
        taps=block.conv2.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(),
        taps_bias=_bias(block.conv2),
        expansion=_matrix(block.conv3),
        bias=_bias(block.conv3, *projection),
        projection=_matrix(projection[0]) if projection else None,
        following=_matrix(after.conv1),
        following_bias=_bias(after.conv1),
    )


def _matrix(layer: nn.Conv2d) -> Tensor:
    """[inputs, outputs] of a 1x1 convolution."""
    return layer.weight.flatten(1).t().contiguous()


def _bias(*layers: nn.Conv2d) -> Tensor:
    """Of layers whose outputs are added."""
    return torch.stack([layer.bias for layer in layers if layer.bias is not None]).sum(0)


def _images(rows: Tensor, count: int) -> Tensor:
    """[count * side * side, channels] as cuDNN takes it: [count, channels, side, side], channels last."""
    side = math.isqrt(len(rows) // count)
    return rows.view(count, side, side, -1).permute(0, 3, 1, 2)


def _rows(images: Tensor) -> Tensor:
    """The same memory, as kernels take it."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)


def _convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.cudnn_convolution_relu(x, layer.weight, layer.bias, layer.stride, _padding(layer), layer.dilation, 1)


def _convolved_and_added(layer: nn.Conv2d, x: Tensor, added: Tensor, bias: Tensor) -> Tensor:
    strides = layer.stride, _padding(layer), layer.dilation
    return torch.cudnn_convolution_add_relu(x, layer.weight, added, 1.0, bias, *strides, 1)


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    assert not isinstance(layer.padding, str)
    return layer.padding
