"""ResNet v1.5 in PyTorch, with torchvision's names and padding: the stride is on the 3x3 convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
        x = nn.functional.max_pool2d(x, 3, 2, 1)
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
