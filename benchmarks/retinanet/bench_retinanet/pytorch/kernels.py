"""Triton kernels for what lies between RetinaNet's convolutions on a GPU, in 16 bits: each reads and writes once.

Activations are [images, side, side, channels], as convolutions leave them; sums are in float32.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CHANNELS = 16
"""Of the stem's input: 12 of a block of 2x2 pixels, and 4 zeros."""
_PIXELS = 32  # of a program, where it has all channels of them


@triton.jit
def _fill(images, mean, deviation, out, side: tl.constexpr, lanes: tl.constexpr):
    """One row of blocks of one image. Planes of colours become blocks whose channels are row, column, colour."""
    image, row = tl.program_id(0).to(tl.int64) // side, tl.program_id(0) % side
    lane = tl.arange(0, lanes)
    block, channel = lane // 16, lane % 16
    real = (block < side) & (channel < 12)
    down, along, colour = channel // 6, channel // 3 % 2, channel % 3
    source = ((image * 3 + colour) * 2 * side + 2 * row + down) * (2 * side) + 2 * block + along
    value = tl.load(images + source, mask=real, other=0.0)
    value = (value - tl.load(mean + colour)) / tl.load(deviation + colour)
    target = ((image * (side + 3) + row + 2) * (side + 3) + block + 2) * 16 + channel
    tl.store(out + target, value.to(out.dtype.element_ty), mask=real)


@triton.jit
def _pool(
    x,
    out,
    count,
    side: tl.constexpr,
    half: tl.constexpr,
    channels: tl.constexpr,
    wide: tl.constexpr,
    rows: tl.constexpr,
):
    """3x3, every second pixel. After a ReLU nothing is below 0, so what lies outside counts as 0."""
    pixel, c = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, wide)
    image, y, along = (pixel // (half * half)).to(tl.int64), pixel // half % half, pixel % half
    most = tl.zeros((rows, wide), x.dtype.element_ty)
    for tap in tl.static_range(9):
        down, right = 2 * y + tap // 3 - 1, 2 * along + tap % 3 - 1
        inside = (pixel < count) & (down >= 0) & (down < side) & (right >= 0) & (right < side)
        source = ((image * side + down) * side + right) * channels
        real = inside[:, None] & (c < channels)[None, :]
        most = tl.maximum(most, tl.load(x + source[:, None] + c[None, :], mask=real, other=0.0))
    place = pixel.to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(out + place, most, mask=(pixel < count)[:, None] & (c < channels)[None, :])


@triton.jit
def _add(
    x,
    bias,
    coarse,
    count,
    side: tl.constexpr,
    small: tl.constexpr,
    channels: tl.constexpr,
    wide: tl.constexpr,
    rows: tl.constexpr,
):
    """In place. small: side of the coarser level that is added, each of its pixels over several; 0: none."""
    pixel, c = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, wide)
    real = (pixel < count)[:, None] & (c < channels)[None, :]
    place = x + pixel.to(tl.int64)[:, None] * channels + c[None, :]
    value = tl.load(place, mask=real, other=0.0).to(tl.float32)
    value += tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    if small:
        image, y, along = (pixel // (side * side)).to(tl.int64), pixel // side % side, pixel % side
        source = ((image * small + y * small // side) * small + along * small // side) * channels
        value += tl.load(coarse + source[:, None] + c[None, :], mask=real, other=0.0).to(tl.float32)
    tl.store(place, value.to(x.dtype.element_ty), mask=real)


@triton.jit
def _best(
    logits, bias, out, count, anchors: tl.constexpr, classes: tl.constexpr, wide: tl.constexpr, rows: tl.constexpr
):
    """The greatest of each anchor's logits."""
    anchor, c = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, wide)
    real = (anchor < count)[:, None] & (c < classes)[None, :]
    value = tl.load(logits + anchor.to(tl.int64)[:, None] * classes + c[None, :], mask=real, other=float("-inf"))
    added = tl.load(bias + (anchor % anchors)[:, None] * classes + c[None, :], mask=real, other=0.0)
    value = value.to(tl.float32) + added
    best = tl.max(value, axis=1)
    broken = tl.max((value != value).to(tl.int32), axis=1) > 0  # a maximum passes over what is not a number
    tl.store(out + anchor, tl.where(broken, float("nan"), best), mask=anchor < count)


def fill(images: Tensor, mean: Tensor, deviation: Tensor, out: Tensor) -> None:
    """(float32 images [n, 3, side, side] - mean) / deviation into `out`, the stem's input [n, side / 2 + 3,
    side / 2 + 3, 16], whose border stays as it is."""
    side = images.shape[2] // 2
    lanes = triton.next_power_of_2(side * CHANNELS)
    _fill[(len(images) * side,)](images, mean, deviation, out, side, lanes, num_warps=8)


def pooled(x: Tensor) -> Tensor:
    """[n, channels, side, side] -> [n, channels, side / 2, side / 2], channels last; nothing in x is below 0."""
    n, channels, side, _ = _last(x)
    half = (side + 1) // 2
    out = _like(x, half)
    count = n * half * half
    sizes = (side, half, channels, triton.next_power_of_2(channels), _PIXELS)
    _pool[(triton.cdiv(count, _PIXELS),)](x, out, count, *sizes)
    return out


def add(x: Tensor, bias: Tensor, coarse: Tensor | None = None) -> Tensor:
    """x [n, channels, side, side], channels last, to which the bias and, magnified, a coarser level are added."""
    n, channels, side, _ = _last(x)
    small = 0 if coarse is None else _last(coarse)[2]
    count = n * side * side
    sizes = (side, small, channels, triton.next_power_of_2(channels), _PIXELS)
    _add[(triton.cdiv(count, _PIXELS),)](x, bias, x if coarse is None else coarse, count, *sizes)
    return x


def best(logits: Tensor, bias: Tensor, anchors: int) -> Tensor:
    """float32 [n, locations * anchors]: the greatest logit of each anchor. logits: [n, anchors * classes, side, side],
    channels last, without their bias [anchors * classes] in float32."""
    n, outputs, side, _ = _last(logits)
    classes = outputs // anchors
    found = torch.empty((n, side * side * anchors), dtype=torch.float32, device=logits.device)
    rows, wide = 16, triton.next_power_of_2(classes)
    _best[(triton.cdiv(found.numel(), rows),)](logits, bias, found, found.numel(), anchors, classes, wide, rows)
    return found


def _last(x: Tensor) -> torch.Size:
    """The shape of what lies in memory as kernels read it."""
    assert x.is_contiguous(memory_format=torch.channels_last)
    return x.shape


def _like(x: Tensor, side: int) -> Tensor:
    n, channels = x.shape[:2]
    return x.new_empty((n, side, side, channels)).permute(0, 3, 1, 2)
