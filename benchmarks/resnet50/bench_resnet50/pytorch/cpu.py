"""A CPU's network on PyTorch: convolutions of oneDNN that add and rectify, with weights laid out once.

PyTorch's own layers lay the weights of all 53 convolutions out anew in each call, and go through memory once more for
each ReLU and each addition: that is a quarter of the time. These operators are those that `torch.compile` puts in
their place, without its compiler. They are PyTorch's own affair, and known to work in 2.13.0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench_resnet50.model import Bottleneck, ResNet


def is_offered(dtype: torch.dtype) -> bool:
    """Does this PyTorch on this processor have the operators?"""
    narrow = dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and (dtype is torch.float32 or narrow)


class Network:
    """Normalised images [n, 3, H, W] -> logits [n, classes], as the folded model that it is made of.

    oneDNN lays out weights otherwise for one image than for several, and either layout costs the other use a third of
    its speed. So they are in memory twice.
    """

    def __init__(self, model: ResNet, image: int) -> None:
        """image: pixels of a side."""
        self.alone, self.several = (_Layers(model, image, count) for count in (1, 2))

    def __call__(self, images: Tensor) -> Tensor:
        return (self.alone if len(images) == 1 else self.several)(images)


class _Layers:
    def __init__(self, model: ResNet, image: int, count: int) -> None:
        """count: of images, for which weights are laid out."""
        blank = torch.zeros((count, 3, image, image), dtype=model.conv1.weight.dtype)
        x = blank.contiguous(memory_format=torch.channels_last)
        self.stem, self.fc = _Convolution(model.conv1, x, "relu"), model.fc
        x = self._stem(x)
        self.blocks: list[_Block] = []
        for stage in model.stages:
            for block in model.get_submodule(stage).children():
                assert isinstance(block, Bottleneck)
                self.blocks.append(_Block(block, x))
                x = self.blocks[-1](x)

    def _stem(self, images: Tensor) -> Tensor:
        return F.max_pool2d(self.stem(images), 3, 2, 1)

    def __call__(self, images: Tensor) -> Tensor:
        x = self._stem(images)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class _Block:
    def __init__(self, block: Bottleneck, x: Tensor) -> None:
        """x: what goes in, as an example."""
        projection = block.downsample[0] if isinstance(block.downsample, nn.Sequential) else None
        self.projection = _Convolution(projection, x, "none") if projection else None
        self.first = _Convolution(block.conv1, x, "relu")
        x = self.first(x)
        self.second = _Convolution(block.conv2, x, "relu")
        self.third = _Convolution(block.conv3, self.second(x), "relu")

    def __call__(self, x: Tensor) -> Tensor:
        inner = self.second(self.first(x))
        return self.third.added_to(self.projection(x) if self.projection else x, inner)


class _Convolution:
    """A convolution and, if `after` is "relu", a ReLU."""

    def __init__(self, module: nn.Module, x: Tensor, after: str) -> None:
        assert isinstance(module, nn.Conv2d)
        self.sizes = (module.padding, module.stride, module.dilation, module.groups)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(module.weight, *self.sizes, x.shape)
        self.bias, self.after = module.bias, after

    def __call__(self, x: Tensor) -> Tensor:
        operator = torch.ops.mkldnn._convolution_pointwise
        result: Tensor = operator(x, self.weight, self.bias, *self.sizes, self.after, [], "")
        return result

    def added_to(self, other: Tensor, x: Tensor) -> Tensor:
        """ReLU of their sum, which replaces `other`."""
        operator = torch.ops.mkldnn._convolution_pointwise_.binary
        result: Tensor = operator(other, x, self.weight, self.bias, *self.sizes, "add", 1.0, self.after, [], "")
        return result
