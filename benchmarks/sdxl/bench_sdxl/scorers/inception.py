"""Inception-v3 as FID uses it: up to the pooled features, with the weights of `pt_inception-2015-12-05-6726825d.pth`.

These come from TensorFlow's network of 2015, which differs from the usual Inception-v3 (Szegedy et al. 2016): average
pooling leaves the border out of its count, and the last block has a maximum in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.runtimes.checkpoints import check_shapes

SIDE = 299
"""Pixels of a side that images are resized to."""
_WIDTH = 32  # channels of the first convolution; a file with fewer is of a network that is narrower throughout

_average: Callable[[Tensor], Tensor] = partial(
    F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False
)
_greatest: Callable[[Tensor], Tensor] = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
_halved: Callable[[Tensor], Tensor] = partial(F.max_pool2d, kernel_size=3, stride=2)


class Conv(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int], **kwargs: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **kwargs)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class BlockA(nn.Module):
    """35 x 35: branches 1x1, 5x5, twice 3x3, and pooled."""

    def __init__(self, inputs: int, pooled: int, w: Callable[[int], int]) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, w(64), 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(inputs, w(48), 1), Conv(w(48), w(64), 5, padding=2)
        self.branch3x3dbl_1 = Conv(inputs, w(64), 1)
        self.branch3x3dbl_2, self.branch3x3dbl_3 = Conv(w(64), w(96), 3, padding=1), Conv(w(96), w(96), 3, padding=1)
        self.branch_pool = Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        fives = self.branch5x5_2(self.branch5x5_1(x))
        threes = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), fives, threes, self.branch_pool(_average(x))], dim=1)


class BlockB(nn.Module):
    """35 x 35 -> 17 x 17."""

    def __init__(self, inputs: int, w: Callable[[int], int]) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, w(384), 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, w(64), 1), Conv(w(64), w(96), 3, padding=1)
        self.branch3x3dbl_3 = Conv(w(96), w(96), 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        threes = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), threes, _halved(x)], dim=1)


class BlockC(nn.Module):
    """17 x 17: rows and columns of 7 in turn."""

    def __init__(self, inputs: int, inner: int, w: Callable[[int], int]) -> None:
        super().__init__()
        row: dict[str, Any] = {"kernel": (1, 7), "padding": (0, 3)}
        column: dict[str, Any] = {"kernel": (7, 1), "padding": (3, 0)}
        self.branch1x1 = Conv(inputs, w(192), 1)
        self.branch7x7_1, self.branch7x7_2 = Conv(inputs, inner, 1), Conv(inner, inner, **row)
        self.branch7x7_3 = Conv(inner, w(192), **column)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(inputs, inner, 1), Conv(inner, inner, **column)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Conv(inner, inner, **row), Conv(inner, inner, **column)
        self.branch7x7dbl_5 = Conv(inner, w(192), **row)
        self.branch_pool = Conv(inputs, w(192), 1)

    def forward(self, x: Tensor) -> Tensor:
        sevens = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), sevens, twice, self.branch_pool(_average(x))], dim=1)


class BlockD(nn.Module):
    """17 x 17 -> 8 x 8."""

    def __init__(self, inputs: int, w: Callable[[int], int]) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(inputs, w(192), 1), Conv(w(192), w(320), 3, stride=2)
        self.branch7x7x3_1 = Conv(inputs, w(192), 1)
        self.branch7x7x3_2 = Conv(w(192), w(192), (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Conv(w(192), w(192), (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Conv(w(192), w(192), 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        threes = self.branch3x3_2(self.branch3x3_1(x))
        sevens = self.branch7x7x3_2(self.branch7x7x3_1(x))
        sevens = self.branch7x7x3_4(self.branch7x7x3_3(sevens))
        return torch.cat([threes, sevens, _halved(x)], dim=1)


class BlockE(nn.Module):
    """8 x 8: branches that fan out into a row and a column."""

    def __init__(self, inputs: int, w: Callable[[int], int], pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool
        fan = w(384)
        self.branch1x1 = Conv(inputs, w(320), 1)
        self.branch3x3_1 = Conv(inputs, fan, 1)
        self.branch3x3_2a = Conv(fan, fan, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Conv(fan, fan, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, w(448), 1), Conv(w(448), fan, 3, padding=1)
        self.branch3x3dbl_3a = Conv(fan, fan, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Conv(fan, fan, (3, 1), padding=(1, 0))
        self.branch_pool = Conv(inputs, w(192), 1)

    def forward(self, x: Tensor) -> Tensor:
        threes = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        fans = [self.branch3x3_2a(threes), self.branch3x3_2b(threes)]
        fans += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([self.branch1x1(x), *fans, self.branch_pool(self.pool(x))], dim=1)


class Inception(nn.Module):
    """first: channels of the first convolution, 32 in the official network; all others are in proportion."""

    def __init__(self, first: int, classes: int) -> None:
        super().__init__()

        def w(width: int) -> int:
            return width * first // _WIDTH

        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, w(32), 3, stride=2), Conv(w(32), w(32), 3)
        self.Conv2d_2b_3x3, self.Conv2d_3b_1x1 = Conv(w(32), w(64), 3, padding=1), Conv(w(64), w(80), 1)
        self.Conv2d_4a_3x3 = Conv(w(80), w(192), 3)
        self.Mixed_5b, self.Mixed_5c = BlockA(w(192), w(32), w), BlockA(w(256), w(64), w)
        self.Mixed_5d, self.Mixed_6a = BlockA(w(288), w(64), w), BlockB(w(288), w)
        self.Mixed_6b, self.Mixed_6c = BlockC(w(768), w(128), w), BlockC(w(768), w(160), w)
        self.Mixed_6d, self.Mixed_6e = BlockC(w(768), w(160), w), BlockC(w(768), w(192), w)
        self.Mixed_7a, self.Mixed_7b = BlockD(w(768), w), BlockE(w(1280), w, _average)
        self.Mixed_7c = BlockE(w(2048), w, _greatest)
        self.fc = nn.Linear(w(2048), classes)

    def forward(self, images: Tensor, side: int = SIDE) -> Tensor:
        """Features [n, 2048] of images [n, 3, H, W] from 0 to 1, which are resized to `side`."""
        x = 2 * F.interpolate(images, (side, side), mode="bilinear", align_corners=False) - 1
        x = _halved(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = _halved(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name, block in self.named_children():
            if name.startswith("Mixed_"):
                x = block(x)
        return x.mean(dim=(2, 3))


def read_inception(path: Path, device: str) -> Inception:
    """The network of the file, in float32 on a device. Raises InputError naming the file and what it lacks."""
    state = {name: value.float() for name, value in runtime.read_state_dict(path).items() if not _counts(name)}
    first, classes = (len(state.get(name, ())) for name in ("Conv2d_1a_3x3.conv.weight", "fc.bias"))
    with torch.device("meta"):
        model = Inception(first or _WIDTH, classes)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items() if not _counts(name)}
    check_shapes({name: tuple(value.shape) for name, value in state.items()}, expected, str(path), "network")
    model.load_state_dict(state, strict=False, assign=True)  # all but the counters
    return model.eval().requires_grad_(False).to(device)


def _counts(name: str) -> bool:
    """Is it a counter of training steps? Files have them or not."""
    return name.endswith("num_batches_tracked")
