"""The stem, and 3x3 convolutions in many small groups, on a GPU by kernels of ours (`convolutions.cu`)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from loadgen.harness.runtimes.cuda import Kernels, has_matrix_units

SOURCE = Path(__file__).with_name("convolutions.cu")
_TILE = 16  # pixels of a side
_STEM, _CHUNK, _MOST = 64, 32, 16  # outputs of a block of the stem, and of one in groups; channels of a group


class Stem:
    """The first convolution as one of blocks of 2x2 pixels, followed by a ReLU."""

    def __init__(self, weight: Tensor, bias: Tensor, kernels: Kernels) -> None:
        """weight: [channels, 16, 4, 4], which `suits_stem`."""
        self._weights, self._bias, self._kernels = stem_ordered(weight), bias.float(), kernels

    def __call__(self, blocks: Tensor) -> Tensor:
        """[n, side + 3, side + 3, 16] with its border -> [n, channels, side, side], channels last."""
        n, side, channels = len(blocks), blocks.shape[1] - 3, len(self._bias)
        out = blocks.new_empty((n, side, side, channels))
        grid = ((-(-side // _TILE)) ** 2 * channels // _STEM, n)
        self._kernels.launch("stem", grid, blocks, self._weights, self._bias, out, channels, side)
        return out.permute(0, 3, 1, 2)


class Grouped:
    """One convolution, followed by a ReLU."""

    def __init__(self, layer: nn.Conv2d, kernels: Kernels) -> None:
        """The layer suits."""
        assert layer.bias is not None
        self._weights, self._bias, self._kernels = ordered(layer.weight), layer.bias.float(), kernels

    def __call__(self, x: Tensor) -> Tensor:
        """[n, channels, side, side], channels last."""
        n, channels, side, _ = x.shape
        out = torch.empty_like(x)
        grid = ((-(-side // _TILE)) ** 2 * channels // _CHUNK, n)
        self._kernels.launch("grouped", grid, x, self._weights, self._bias, out, channels, side)
        return out


def kernels_for(weight: Tensor) -> Kernels | None:
    """Compiled for the GPU and number format of these weights; None: it has no matrix units for them."""
    if weight.dtype == torch.float32 or not has_matrix_units(weight.device):
        return None
    return Kernels(SOURCE, weight.device, {"IS_BF16": int(weight.dtype == torch.bfloat16)})


def suits_stem(weight: Tensor) -> bool:
    return len(weight) % _STEM == 0


def suits(layer: nn.Conv2d) -> bool:
    """Are its groups small, and all pixels kept?"""
    width = layer.weight.shape[1]
    return layer.stride == (1, 1) and layer.out_channels % _CHUNK == 0 and width in (4, 8, _MOST)


def stem_ordered(weight: Tensor) -> Tensor:
    """[channels, 16, 4, 4] in the order in which threads read them: taps, blocks of 64 outputs, halves, pairs of
    products, threads, two products, halves of their inputs, two inputs.

    Outputs are ordered so that a thread ends with 8 neighbours of each half."""
    split = weight.permute(2, 3, 1, 0).reshape(16, 2, 4, 2, len(weight) // _STEM, 2, 4, 2, 2, 2)
    tap, part, thread, number, block, half, quarter, pair, product, odd = range(10)
    return split.permute(tap, block, half, pair, quarter, odd, thread, product, part, number).contiguous()


def ordered(weight: Tensor) -> Tensor:
    """[channels, channels of a group, 3, 3] in the order in which threads read them: chunks of 32 channels, columns and
    rows of taps, halves of a chunk, threads, two products, halves of their inputs, two inputs.

    Outputs are ordered so that a thread ends with 4 neighbours of each half."""
    channels, width = weight.shape[:2]
    dense = weight.new_zeros((channels // _MOST, _MOST, _MOST, 3, 3))
    for output in range(_MOST):
        first = output // width * width
        dense[:, output, first : first + width] = weight.reshape(-1, _MOST, width, 3, 3)[:, output]
    split = dense.reshape(channels // _CHUNK, 2, 4, 2, 2, 2, 4, 2, 3, 3)
    chunk, half, quarter, product, odd, part, thread, number, row, column = range(10)
    order = (chunk, column, row, half, quarter, odd, thread, product, part, number)
    return split.permute(order).contiguous()
