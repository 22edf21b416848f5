"""RetinaNet in 16 bits on a GPU, in few passes over its activations.

Biases, ReLUs and sums are parts of cuDNN's convolutions where it has them, and kernels of ours (`kernels.py`) do what
is left between convolutions. The classes' bias is never written to all of an image's 31.7 million logits: what selects
candidates adds it on the way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench_retinanet.anchors import level_anchors
from bench_retinanet.config import HEADS, RetinaNetConfig
from bench_retinanet.model import Bottleneck, Level, RetinaNet, normalisation
from bench_retinanet.pytorch import convolutions, kernels
from bench_retinanet.pytorch.detection import Candidates, Selected, candidates
from bench_retinanet.pytorch.heads import CANVAS, Canvas
from bench_retinanet.pytorch.selection import selected
from loadgen.harness.runtimes.cuda import Kernels

_GROUP = 16
"""Channels of a group from which on tensor cores take no less time for fewer."""


class Fused:
    """A folded `RetinaNet` on its device, channels last, whose weights it shares."""

    def __init__(self, model: RetinaNet, config: RetinaNetConfig, batches: list[int]) -> None:
        """batches: sizes of those that will come."""
        body, self._pyramid = model.backbone["body"], model.backbone["fpn"]
        self._side = config.image // 2
        stem = body.get_submodule("conv1")
        self._stem = _last(blocked(stem.get_parameter("weight"))), stem.get_parameter("bias")
        ours = convolutions.kernels_for(self._stem[0])
        self._entry = convolutions.Stem(*self._stem, ours) if ours and convolutions.suits_stem(self._stem[0]) else None
        stages = [body.get_submodule(f"layer{number + 1}") for number in range(len(config.layers))]
        self._stages = [[_Block(block, ours) for block in stage.children()] for stage in stages]
        self._heads = [model.head[name] for name in HEADS]
        self._canvas = Canvas(model, config, _convolved, _plain)
        self._bias = _biased(self._heads[0], HEADS["classification_head"]).float()
        self._anchors = [torch.from_numpy(boxes).to(self._bias.device) for boxes in level_anchors(config)]
        self._normalisation, self._image = normalisation(self._bias.device), config.image
        sides = (self._side + 3, self._side + 3, kernels.CHANNELS)
        self._inputs = {count: self._stem[0].new_zeros((count, *sides)) for count in batches}

    def select(self, images: Tensor) -> Selected:
        """See `gpu.Network`."""
        return selected(self.levels(images, self._inputs[len(images)]), self._anchors, self._image)

    def sort(self, images: Tensor) -> Candidates:
        """See `gpu.Network`. Writes to no memory that recordings use."""
        levels = self.levels(images, torch.zeros_like(self._inputs[max(self._inputs)][: len(images)]))
        return candidates(levels, self._anchors, self._image)

    def levels(self, images: Tensor, blocks: Tensor) -> list[Level]:
        """What the heads give for float32 images [n, 3, H, W] of values from 0 to 1. Logits are without their bias,
        which is in `Level.bias`. blocks: room for the images, zeros [n, H/2 + 3, W/2 + 3, 16]."""
        features = self.features(images, blocks)
        if len(images) > CANVAS:
            return [self._level(x) for x in features]
        return [Level(_last(level.logits), level.deltas, self._bias) for level in self._canvas(features)]

    def features(self, images: Tensor, blocks: Tensor) -> list[Tensor]:
        """Of each level, as `RetinaNet.features`."""
        mean, deviation = self._normalisation
        kernels.fill(images, mean, deviation, blocks)
        stem = self._entry(blocks) if self._entry else _rectified(blocks.permute(0, 3, 1, 2), *self._stem)
        x = kernels.pooled(stem)
        found = []
        for stage in self._stages:
            for block in stage:
                x = block(x)
            found.append(x)
        return self._levels(found[-3:])

    def _levels(self, stages: list[Tensor]) -> list[Tensor]:
        inner, outer = (self._pyramid.get_submodule(name) for name in ("inner_blocks", "layer_blocks"))
        found: list[Tensor] = []
        x: Tensor | None = None
        for number in reversed(range(len(stages))):
            lateral = inner.get_submodule(str(number))
            x = kernels.add(_plain(lateral, stages[number]), lateral.get_parameter("bias"), x)
            layer = outer.get_submodule(str(number))
            found.insert(0, kernels.add(_plain(layer, x), layer.get_parameter("bias")))
        p6, p7 = self._pyramid.get_submodule("extra_blocks").children()
        found.append(p6(found[-1]))
        found.append(p7(torch.relu(found[-1])))
        return found

    def _level(self, x: Tensor) -> Level:
        classes, boxes = x, x
        for layer in self._heads[0].get_submodule("conv").children():
            classes = _convolved(layer, classes) if isinstance(layer, nn.Conv2d) else classes
        for layer in self._heads[1].get_submodule("conv").children():
            boxes = _convolved(layer, boxes) if isinstance(layer, nn.Conv2d) else boxes
        logits = _plain(self._heads[0].get_submodule(HEADS["classification_head"]), classes)
        deltas: Tensor = self._heads[1].get_submodule(HEADS["regression_head"])(boxes)
        return Level(logits, deltas, self._bias)


class _Block:
    """A bottleneck; biases of what is added are one."""

    def __init__(self, block: nn.Module, ours: Kernels | None) -> None:
        """ours: what computes convolutions in small groups, if this GPU can."""
        assert isinstance(block, Bottleneck)
        self._block, self._middle, self._last = block, block.conv2, block.conv3
        self._projection = [layer for layer in block.downsample.modules() if isinstance(layer, nn.Conv2d)]
        biases = [layer.bias for layer in (self._last, *self._projection) if layer.bias is not None]
        self._bias = torch.stack(biases).sum(0)
        weight, self._groups = regrouped(self._middle.weight, self._middle.groups)
        self._weight = _last(weight)
        self._grouped = convolutions.Grouped(self._middle, ours) if ours and convolutions.suits(self._middle) else None

    def __call__(self, x: Tensor) -> Tensor:
        middle, last = self._middle, self._last
        inner = _convolved(self._block.conv1, x)
        if self._grouped:
            inner = self._grouped(inner)
        else:
            inner = _rectified(inner, self._weight, middle.bias, middle.stride[0], 1, self._groups)
        added = _plain(self._projection[0], x) if self._projection else x
        once = ((1, 1), (0, 0), (1, 1), 1)
        return torch.cudnn_convolution_add_relu(inner, last.weight, added, 1.0, self._bias, *once)


# Twin of: benchmarks/resnet50/bench_resnet50/pytorch/fused.py::blocked
def blocked(weight: Tensor) -> Tensor:
    """The first convolution's weight [out, 3, 7, 7], of stride 2, as one of stride 1 on blocks of 2x2 pixels.

    [out, 16, 4, 4]: the channels of a block are row, column, colour, and 4 zeros, because tensor cores take multiples
    of 8. Output pixel i begins with block i - 2.
    """
    outputs = len(weight)
    even = F.pad(weight, (1, 0, 1, 0))  # 8x8, the added row and column of zeros first
    parts = even.reshape(outputs, 3, 4, 2, 4, 2).permute(0, 3, 5, 1, 2, 4)
    return F.pad(parts.reshape(outputs, 12, 4, 4), (0, 0, 0, 0, 0, 4))


def regrouped(weight: Tensor, groups: int) -> tuple[Tensor, int]:
    """The same convolution in fewer groups of at least _GROUP channels, with zeros between what were groups, and how
    many they are. weight: [outputs, inputs / groups, 3, 3], as many outputs as inputs."""
    outputs, width, *kernel = weight.shape
    joined = max(1, min(groups, _GROUP // width))
    if joined == 1 or groups % joined:
        return weight, groups
    found = weight.new_zeros((groups // joined, joined, width, joined, width, *kernel))
    parts = weight.reshape(groups // joined, joined, width, width, *kernel)
    for number in range(joined):
        found[:, number, :, number] = parts[:, number]
    return found.reshape(outputs, joined * width, *kernel), groups // joined


def _last(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last)


def _biased(head: nn.Module, last: str) -> Tensor:
    return head.get_submodule(last).get_parameter("bias")


def _convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """With its bias and a ReLU."""
    padding = layer.padding[0]
    assert isinstance(padding, int)
    return _rectified(x, layer.weight, layer.bias, layer.stride[0], padding)


def _rectified(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0, groups: int = 1
) -> Tensor:
    pairs = ((stride, stride), (padding, padding), (1, 1))
    return torch.cudnn_convolution_relu(x, weight, bias, *pairs, groups)


def _plain(layer: nn.Module, x: Tensor) -> Tensor:
    """Without its bias."""
    assert isinstance(layer, nn.Conv2d)
    return F.conv2d(x, layer.weight, None, layer.stride, layer.padding)
