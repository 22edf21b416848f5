"""Triton kernels for what lies between RetinaNet's convolutions on a GPU, in 16 bits: each reads and writes once.

Activations are [images, side, side, channels], as convolutions leave them; sums are in float32.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

CHANNELS = 16
"""Of the stem's input: 12 of a block of 2x2 pixels, and 4 zeros."""
_PIXELS = 32  # of a program, where it has all channels of them
_LOCATIONS, _OUTPUTS = 8, 512  # of a program that selects


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
def _select(
    logits,
    bias,
    values,
    places,
    counts,
    locations,
    level,
    limit,
    outputs: tl.constexpr,
    levels: tl.constexpr,
    capacity: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Those of some locations and outputs of one image's level that are over the limit, or not a number, go to its
    list, in any order."""
    parts: tl.constexpr = (outputs + columns - 1) // columns
    image = tl.program_id(1).to(tl.int64)
    row = image * levels + level
    logits += image * locations * outputs
    first = tl.program_id(0) // parts * rows
    output = tl.program_id(0) % parts * columns + tl.arange(0, columns)
    added = tl.load(bias + output, mask=output < outputs, other=0.0)
    location = first + tl.arange(0, rows)
    at = location[:, None] * outputs + output[None, :]
    real = (location < locations)[:, None] & (output < outputs)[None, :]
    value = tl.load(logits + at, mask=real, other=float("-inf")).to(tl.float32) + added[None, :]
    over = (value > limit) | (value != value)
    if tl.sum(tl.sum(over.to(tl.int32), axis=1), axis=0) > 0:  # seldom: read once more, location by location
        for number in range(rows):
            index = (first + number) * outputs + output
            is_real = (index < locations * outputs) & (output < outputs)
            logit = tl.load(logits + index, mask=is_real, other=float("-inf")).to(tl.float32) + added
            passes = (logit > limit) | (logit != logit)
            count = tl.sum(passes.to(tl.int32), axis=0)
            if count > 0:
                place = tl.atomic_add(counts + row, count) + tl.cumsum(passes.to(tl.int32), axis=0) - 1
                kept = passes & (place < capacity)
                tl.store(values + row * capacity + place, logit, mask=kept)
                tl.store(places + row * capacity + place, index, mask=kept)


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


class Lists(NamedTuple):
    """Of each image and level."""

    values: Tensor
    """float32 [n, levels, capacity]: logits over a limit, and -inf behind them"""
    places: Tensor
    """int32 [n, levels, capacity]: where they were, location * anchors * classes + anchor * classes + class"""
    counts: Tensor
    """int32 [n, levels]: how many there were; more than the capacity were not all kept"""


def lists(n: int, levels: int, capacity: int, device: torch.device) -> Lists:
    values = torch.full((n, levels, capacity), float("-inf"), device=device)
    places = torch.zeros((n, levels, capacity), dtype=torch.int32, device=device)
    return Lists(values, places, torch.zeros((n, levels), dtype=torch.int32, device=device))


def select(logits: Tensor, bias: Tensor, limit: float, level: int, to: Lists) -> None:
    """What is over the limit of logits [n, anchors * classes, side, side], channels last, once their bias [anchors *
    classes] in float32 is added."""
    n, outputs, side, _ = _last(logits)
    locations = side * side
    _, levels, capacity = to.values.shape
    programs = triton.cdiv(locations, _LOCATIONS) * triton.cdiv(outputs, _OUTPUTS)
    sizes = (outputs, levels, capacity, _LOCATIONS, _OUTPUTS)
    _select[(programs, n)](logits, bias, *to, locations, level, limit, *sizes, num_warps=8)


def _last(x: Tensor) -> torch.Size:
    """The shape of what lies in memory as kernels read it."""
    assert x.is_contiguous(memory_format=torch.channels_last)
    return x.shape


def _like(x: Tensor, side: int) -> Tensor:
    n, channels = x.shape[:2]
    return x.new_empty((n, side, side, channels)).permute(0, 3, 1, 2)
