"""ResNet v1.5 in PyTorch, with torchvision's names and padding: the stride is on the 3x3 convolution.

`fold` changes a trained one into one that computes the same in fewer steps: batch normalisation joins the convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench_resnet50 import config as sizes
from bench_resnet50.config import ResNetConfig, bottlenecks, features


class ResNet(nn.Module):
    """Normalised images [n, 3, H, W] -> logits [n, classes]."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(3, config.width, 7, 2), _norm(config.width)
        self.stages = [f"layer{number + 1}" for number in range(len(config.layers))]
        blocks: dict[str, list[nn.Module]] = {stage: [] for stage in self.stages}
        for block in bottlenecks(config):
            blocks[block.name.split(".")[0]].append(Bottleneck(block))
        for stage in self.stages:
            self.add_module(stage, nn.Sequential(*blocks[stage]))
        self.fc = nn.Linear(features(config), config.classes)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(images)))
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class Bottleneck(nn.Module):
    def __init__(self, block: sizes.Bottleneck) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(block.inputs, block.inner, 1), _norm(block.inner)
        self.conv2, self.bn2 = _convolution(block.inner, block.inner, 3, block.stride), _norm(block.inner)
        self.conv3, self.bn3 = _convolution(block.inner, block.outputs, 1), _norm(block.outputs)
        self.downsample: nn.Module = nn.Identity()
        if block.projects:
            projection = _convolution(block.inputs, block.outputs, 1, block.stride)
            self.downsample = nn.Sequential(projection, _norm(block.outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(x)))
        inner = torch.relu(self.bn2(self.conv2(inner)))
        return torch.relu(self.bn3(self.conv3(inner)) + self.downsample(x))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=sizes.NORM_EPSILON)


def fold(model: ResNet) -> None:
    """Fold every batch normalisation into the convolution before it. The model is for inference only then."""
    for module in [model, *model.modules()]:
        if isinstance(module, (ResNet, Bottleneck)):
            for number in ("1", "2", "3"):
                _fold_pair(module, f"conv{number}", f"bn{number}")
        if isinstance(module, nn.Sequential):
            _fold_pair(module, "0", "1")


def _fold_pair(module: nn.Module, convolution: str, norm: str) -> None:
    first, second = getattr(module, convolution, None), getattr(module, norm, None)
    if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
        setattr(module, convolution, fuse_conv_bn_eval(first, second))
        setattr(module, norm, nn.Identity())
