"""The heads over all levels at once: their features lie side by side on one canvas, which each convolution reads once.

Five levels mean five launches of each layer, and the small levels fill no GPU. Between levels is a column or row of
zeros, as between an image's edge and its padding; after each layer a mask makes those zero again. The canvas has an
eighth more places than the levels, so for many images at once it is slower, and for one it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bench_retinanet.config import HEADS, RetinaNetConfig, grids
from bench_retinanet.model import Level, RetinaNet

CANVAS = 4
"""Images up to which this is done; not tuned yet."""
Convolve: TypeAlias = Callable[[nn.Conv2d, Tensor], Tensor]


def rectified(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """With its bias and a ReLU, as PyTorch has it."""
    return torch.relu(layer(x))


class Canvas:
    """Made from a model on its device, whose weights it shares."""

    def __init__(
        self,
        model: RetinaNet,
        config: RetinaNetConfig,
        rectified: Convolve = rectified,
        last: Convolve = nn.Module.__call__,
    ) -> None:
        """rectified: computes a layer and the ReLU after it; last: the layer that gives logits."""
        self.rectified, self.last = rectified, last
        self.places = places(grids(config))
        height, width = (max(place[axis].stop for place in self.places) for axis in (0, 1))
        weight = next(model.parameters())
        self.mask = weight.new_zeros((1, 1, height, width))
        for rows, columns in self.places:
            self.mask[:, :, rows, columns] = 1
        self.heads = {name: model.head[name] for name in HEADS}

    def __call__(self, features: list[Tensor]) -> list[Level]:
        """As `RetinaNet.heads`."""
        first = features[0]
        canvas = first.new_zeros((*first.shape[:2], *self.mask.shape[2:]))
        canvas = canvas.contiguous(memory_format=torch.channels_last)
        for (rows, columns), x in zip(self.places, features, strict=True):
            canvas[:, :, rows, columns] = x
        classes, boxes = (_layer(head, HEADS[name]) for name, head in self.heads.items())
        before = [self._head(head, canvas) for head in self.heads.values()]
        logits, deltas = self.last(classes, before[0]), boxes(before[1])
        return [Level(logits[:, :, rows, columns], deltas[:, :, rows, columns]) for rows, columns in self.places]

    def _head(self, head: nn.Module, x: Tensor) -> Tensor:
        for layer in head.get_submodule("conv").children():
            if isinstance(layer, nn.Conv2d):
                x = self.rectified(layer, x) * self.mask
        return x


def _layer(head: nn.Module, name: str) -> nn.Conv2d:
    found = head.get_submodule(name)
    assert isinstance(found, nn.Conv2d)
    return found


def places(sides: list[int]) -> list[tuple[slice, slice]]:
    """(rows, columns) of each level: the finest on the left, the others beside it, one below the other."""
    found = [(slice(0, sides[0]), slice(0, sides[0]))]
    top = 0
    for side in sides[1:]:
        found.append((slice(top, top + side), slice(sides[0] + 1, sides[0] + 1 + side)))
        top += side + 1
    return found
