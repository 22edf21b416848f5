"""RetinaNet in PyTorch: ResNeXt, feature pyramid and heads, with the names of the official state dict.

What the heads give becomes detections in `pytorch/detection.py`. `fold` changes a trained model into one that
computes the same in fewer steps: batch normalisation joins the convolutions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench_retinanet import config as sizes
from bench_retinanet.config import HEADS, LEVELS, RetinaNetConfig, bottlenecks, head_outputs, stage_outputs
from bench_retinanet.preprocess import DEVIATION, MEAN


class Level(NamedTuple):
    """What the heads give for one level of the pyramid, as convolutions leave it: channels are anchor * size + part."""

    logits: Tensor
    """[n, 9 * classes, side, side]"""
    deltas: Tensor
    """[n, 9 * 4, side, side]"""
    bias: Tensor | None = None
    """float32 [9 * classes], if it is still to be added to the logits"""


class RetinaNet(nn.Module):
    """Images [n, 3, H, W] of values from 0 to 1 -> a `Level` of each of five."""

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"body": Body(config), "fpn": Pyramid(config)})
        self.head = nn.ModuleDict({name: Head(config, name) for name in HEADS})

    def forward(self, images: Tensor) -> list[Level]:
        """The reference would now resize to the size that images have already."""
        return self.heads(self.features(normalised(images, normalisation(images.device))))

    def features(self, x: Tensor) -> list[Tensor]:
        """Normalised images -> [n, channels, side, side] of each level."""
        found: list[Tensor] = self.backbone["fpn"](self.backbone["body"](x))
        return found

    def heads(self, features: list[Tensor]) -> list[Level]:
        logits, deltas = (self.head[name] for name in HEADS)
        return [Level(logits(x), deltas(x)) for x in features]


def normalisation(device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and deviation of red, green and blue, [3, 1, 1]. A GPU's recordings cannot make them."""
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, DEVIATION))
    return mean, deviation


def normalised(images: Tensor, constants: tuple[Tensor, Tensor]) -> Tensor:
    """In float32, as the images are."""
    mean, deviation = constants
    return (images - mean) / deviation


class Body(nn.Module):
    """A ResNeXt without its last layers: normalised images -> features of its last three stages, finest first."""

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(3, config.stem, 7, 2), _norm(config.stem)
        self.stages = [f"layer{number + 1}" for number in range(len(config.layers))]
        blocks: dict[str, list[nn.Module]] = {stage: [] for stage in self.stages}
        for block in bottlenecks(config):
            blocks[block.name.split(".")[-2]].append(Bottleneck(block, config.groups))
        for stage in self.stages:
            self.add_module(stage, nn.Sequential(*blocks[stage]))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = F.max_pool2d(torch.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        found = []
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
            found.append(x)
        return found[-3:]


class Bottleneck(nn.Module):
    def __init__(self, block: sizes.Bottleneck, groups: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(block.inputs, block.inner, 1), _norm(block.inner)
        self.conv2 = _convolution(block.inner, block.inner, 3, block.stride, groups)
        self.bn2 = _norm(block.inner)
        self.conv3, self.bn3 = _convolution(block.inner, block.outputs, 1), _norm(block.outputs)
        self.downsample: nn.Module = nn.Identity()
        if block.projects:
            projection = _convolution(block.inputs, block.outputs, 1, block.stride)
            self.downsample = nn.Sequential(projection, _norm(block.outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(x)))
        inner = torch.relu(self.bn2(self.conv2(inner)))
        return torch.relu(self.bn3(self.conv3(inner)) + self.downsample(x))


class Pyramid(nn.Module):
    """Features of three stages -> those of five levels, all equally wide, finest first."""

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__()
        width = config.channels
        self.inner_blocks = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in stage_outputs(config))
        self.layer_blocks = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in stage_outputs(config))
        extra = {name: nn.Conv2d(width, width, 3, 2, 1) for name in ("p6", "p7")}
        self.extra_blocks = nn.ModuleDict(extra)

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        x = self.inner_blocks[-1](stages[-1])
        found = [self.layer_blocks[-1](x)]
        for number in (1, 0):  # from the coarse to the fine
            lateral = self.inner_blocks[number](stages[number])
            x = lateral + F.interpolate(x, size=lateral.shape[-2:], mode="nearest")
            found.insert(0, self.layer_blocks[number](x))
        found.append(self.extra_blocks["p6"](found[-1]))  # of the pyramid's own level, not of the backbone
        found.append(self.extra_blocks["p7"](torch.relu(found[-1])))
        assert len(found) == LEVELS
        return found


class Head(nn.Module):
    """One for all levels."""

    def __init__(self, config: RetinaNetConfig, name: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(config.convolutions):
            layers += [nn.Conv2d(config.channels, config.channels, 3, 1, 1), nn.ReLU()]
        self.conv, self._last = nn.Sequential(*layers), HEADS[name]
        self.add_module(self._last, nn.Conv2d(config.channels, head_outputs(config)[name], 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.get_submodule(self._last)(self.conv(x))
        return found


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    """Frozen wherever the model only predicts."""
    return nn.BatchNorm2d(channels, eps=sizes.NORM_EPSILON)


def fold(model: RetinaNet) -> None:
    """Fold every batch normalisation into the convolution before it. The model is for inference only then."""
    for module in [*model.modules()]:
        if isinstance(module, (Body, Bottleneck)):
            for number in ("1", "2", "3"):
                _fold_pair(module, f"conv{number}", f"bn{number}")
        if isinstance(module, Bottleneck) and isinstance(module.downsample, nn.Sequential):
            _fold_pair(module.downsample, "0", "1")


def _fold_pair(module: nn.Module, convolution: str, norm: str) -> None:
    first, second = getattr(module, convolution, None), getattr(module, norm, None)
    if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
        setattr(module, convolution, fuse_conv_bn_eval(first, second))
        setattr(module, norm, nn.Identity())
