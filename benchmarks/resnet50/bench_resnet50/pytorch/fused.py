"""ResNet-50 in 16 bits on an NVIDIA GPU, in as few passes over its activations as possible.

Writing and reading activations between convolutions, 49 MB an image at 3 to 4.5 TB/s, takes longer than the arithmetic.
So biases, ReLUs and sums are parts of the convolutions. Where activations are largest, kernels of ours do several steps
at once: all to the first bottleneck's first convolution, and in the first stage all of a bottleneck but its first
convolution, together with the first of the next one. The rest is cuDNN's: what fusing a later stage gains on one GPU
it loses on another (docs/performance.md).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench_resnet50.model import Bottleneck, ResNet
from bench_resnet50.pytorch import kernels

WIDTH = 64
"""Of the networks that our kernels are for."""


class Fused:
    """A folded `ResNet` of that width and several stages, on a GPU: a `gpu.Network`."""

    def __init__(self, model: ResNet, image: int) -> None:
        self._side = image // 2
        blocks = [block for block in model.modules() if isinstance(block, Bottleneck)]
        stem = blocked(model.conv1.weight).permute(2, 3, 1, 0).flatten(0, 2).contiguous()
        self._entry = stem, _bias(model.conv1), _matrix(blocks[0].conv1), _bias(blocks[0].conv1)
        first = sum(block.conv2.out_channels == WIDTH for block in blocks)
        self._joints = [_joint(block, after) for block, after in pairwise(blocks[: first + 1])]
        self._blocks = [(block, _bias(block.conv3, *_projection(block))) for block in blocks[first:]]
        self._fc = model.fc

    def buffer(self, count: int) -> Tensor:
        """For images as blocks of 2x2 pixels: zeros [count, H/2 + 3, W/2 + 3, 16]; the border stays zero."""
        side = self._side + 3
        return self._fc.weight.new_zeros((count, side, side, kernels.CHANNELS))

    def fill(self, buffer: Tensor, images: Tensor, mean: Tensor, scale: Tensor) -> None:
        kernels.fill(images, mean, scale, buffer)

    def __call__(self, buffer: Tensor) -> Tensor:
        """Logits [count, classes]."""
        total, following = kernels.entry(buffer, *self._entry)
        for joint in self._joints:
            total, following = kernels.block(following, total, self._side // 2, joint)
        x, h = (_images(rows, len(buffer)) for rows in (total, following))
        for number, (block, bias) in enumerate(self._blocks):
            x = _computed(block, bias, x, _convolved(block.conv1, x) if number else h)
        logits: Tensor = self._fc(x.mean((2, 3)))
        return logits


def blocked(weight: Tensor) -> Tensor:
    """The first convolution's weight [out, 3, 7, 7], of stride 2, as one of stride 1 on blocks of 2x2 pixels.

    [out, 16, 4, 4]: the channels of a block are row, column, colour, and 4 zeros, because tensor cores take multiples
    of 8. Output pixel i begins with block i - 2.
    """
    outputs = len(weight)
    even = F.pad(weight, (1, 0, 1, 0))  # 8x8, the added row and column of zeros first
    parts = even.reshape(outputs, 3, 4, 2, 4, 2).permute(0, 3, 5, 1, 2, 4)
    return F.pad(parts.reshape(outputs, 12, 4, 4), (0, 0, 0, 0, 0, 4))


def _joint(block: Bottleneck, after: Bottleneck) -> kernels.Joint:
    projection = _projection(block)
    return kernels.Joint(
        taps=block.conv2.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(),
        taps_bias=_bias(block.conv2),
        expansion=_matrix(block.conv3),
        bias=_bias(block.conv3, *projection),
        projection=_matrix(projection[0]) if projection else None,
        following=_matrix(after.conv1),
        following_bias=_bias(after.conv1),
    )


def _projection(block: Bottleneck) -> list[nn.Conv2d]:
    """The convolution of the block's input, if it has one."""
    return [layer for layer in block.downsample.modules() if isinstance(layer, nn.Conv2d)]


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


def _computed(block: Bottleneck, bias: Tensor, x: Tensor, h: Tensor) -> Tensor:
    """x: the block's input; h: what its first convolution made of it; bias: of the expansion and the projection."""
    projection, last = _projection(block), block.conv3
    added = F.conv2d(x, projection[0].weight, stride=projection[0].stride) if projection else x
    strides = last.stride, _padding(last), last.dilation
    return torch.cudnn_convolution_add_relu(_convolved(block.conv2, h), last.weight, added, 1.0, bias, *strides, 1)


def _convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.cudnn_convolution_relu(x, layer.weight, layer.bias, layer.stride, _padding(layer), layer.dilation, 1)


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    assert not isinstance(layer.padding, str)
    return layer.padding
