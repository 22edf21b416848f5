"""The 3D U-Net in PyTorch. Parameter names are those of the official checkpoint.

Isensee et al., nnU-Net (2021), as the reference trained it on KiTS19: at each level two 3x3x3 convolutions without a
bias, each with an affine instance normalisation and a ReLU; a stride of 2 leads down, a transposed convolution up.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from bench_3d_unet.config import UNetConfig
from bench_3d_unet.official import CLASSES


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.InstanceNorm3d(outputs, affine=True),  # epsilon 1e-5, no running statistics: both are the official ones
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _layer(inputs, outputs, stride)
        self.conv2 = _layer(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv2(self.conv1(x))
        return output


class Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.upsample_conv = nn.Sequential(nn.ConvTranspose3d(inputs, outputs, 2, 2))
        self.conv1 = _layer(2 * outputs, outputs)
        self.conv2 = _layer(outputs, outputs)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        output: Tensor = self.conv2(self.conv1(torch.cat([self.upsample_conv(x), skipped], dim=1)))
        return output


class Output(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv3d(inputs, len(CLASSES), 1))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv(x)
        return output


class UNet(nn.Module):
    """Windows [n, 1, D, H, W] -> logits [n, 3, D, H, W]; each side a multiple of 2 to the number of levels below."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        filters = config.filters
        self.input_block = Block(1, filters[0])
        self.downsample = nn.ModuleList(Block(a, b, stride=2) for a, b in pairwise(filters[:-1]))
        self.bottleneck = Block(filters[-2], filters[-1], stride=2)
        self.upsample = nn.ModuleList(Up(a, b) for a, b in pairwise(filters[::-1]))
        self.output = Output(filters[0])

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_block(x)
        skipped = [x]
        for down in self.downsample:
            x = down(x)
            skipped.append(x)
        x = self.bottleneck(x)
        for up in self.upsample:
            x = up(x, skipped.pop())
        output: Tensor = self.output(x)
        return output
