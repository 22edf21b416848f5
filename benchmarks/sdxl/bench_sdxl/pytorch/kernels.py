"""Triton kernels for what lies between SDXL's convolutions and matrix products on a GPU.

All of it is bound by memory, so each kernel does what it can with a value while it has it. Images lie channels last:
an image of n x C x H x W is read as [n, H * W, C]. Sums are in float32, whatever the values are.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Form(NamedTuple):
    """How a kernel writes what it has computed: multiplied by a factor, then in a number format."""

    dtype: torch.dtype
    factor: float = 1.0


_ROWS = 128
_COLUMNS = 64
"""Of a tile of an image: every width of SDXL is a multiple of 64."""


@triton.jit
def _moments(x, moments, rows, channels, first, every, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Of one tile, each channel's mean and sum of squared deviations. first: x's first channel among every one."""
    chunk, part, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row, column = chunk * ROWS + tl.arange(0, ROWS), part * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < channels)[None]
    values = tl.load(x + (image * rows + row)[:, None] * channels + column[None], mask=inside, other=0).to(tl.float32)
    mean = tl.sum(values, 0) / tl.minimum(ROWS, rows - chunk * ROWS)
    deviations = tl.where(inside, values - mean[None], 0)
    out = moments + (image * tl.num_programs(0) + chunk) * 2 * every + first + column
    tl.store(out, mean, mask=column < channels)
    tl.store(out + every, tl.sum(deviations * deviations, 0), mask=column < channels)


@triton.jit
def _affine(
    moments,
    shift,
    stride,
    weight,
    bias,
    scales,
    offsets,
    rows,
    channels,
    chunks,
    epsilon,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SHIFTED: tl.constexpr,
):
    """Of one group of one image: what its channels are multiplied with, and what is added then."""
    group, image = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, LANES)
    real, channel = lane < WIDTH, group * WIDTH + lane
    place = image * channels + channel
    added = tl.zeros([LANES], tl.float32)
    if SHIFTED:
        added += tl.load(shift + image * stride + channel, mask=real, other=0).to(tl.float32)
    source = moments + image.to(tl.int64) * chunks * 2 * channels + channel[None]
    total = tl.zeros([LANES], tl.float32)
    for first in range(0, chunks, BLOCK):
        chunk = first + tl.arange(0, BLOCK)
        inside = (chunk < chunks)[:, None] & real[None]
        count = tl.minimum(ROWS, rows - chunk * ROWS)[:, None]
        means = tl.load(source + chunk[:, None] * 2 * channels, mask=inside, other=0)
        total += tl.sum(tl.where(inside, (means + added[None]) * count, 0), 0)
    mean = tl.sum(total, 0) / (rows * WIDTH)
    squares = tl.zeros([LANES], tl.float32)
    for first in range(0, chunks, BLOCK):
        chunk = first + tl.arange(0, BLOCK)
        inside = (chunk < chunks)[:, None] & real[None]
        count = tl.minimum(ROWS, rows - chunk * ROWS)[:, None]
        here = source + chunk[:, None] * 2 * channels
        away = tl.load(here, mask=inside, other=0) + added[None] - mean
        squares += tl.sum(tl.load(here + channels, mask=inside, other=0) + tl.where(inside, count * away * away, 0), 0)
    variance = tl.sum(squares, 0) / (rows * WIDTH)
    scale = tl.load(weight + channel, mask=real, other=0).to(tl.float32) / tl.sqrt(variance + epsilon)
    offset = tl.load(bias + channel, mask=real, other=0).to(tl.float32) + (added - mean) * scale
    tl.store(scales + place, scale, mask=real)
    tl.store(offsets + place, offset, mask=real)


@triton.jit
def _normalised(
    x,
    scales,
    offsets,
    out,
    rows,
    channels,
    first,
    every,
    factor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ACTIVE: tl.constexpr,
):
    """One tile, scaled and shifted by its channels' numbers, and SiLU of it. first: see `_moments`."""
    chunk, part, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row, column = chunk * ROWS + tl.arange(0, ROWS), part * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < channels)[None]
    pixel = (image * rows + row)[:, None]
    values = tl.load(x + pixel * channels + column[None], mask=inside, other=0).to(tl.float32)
    place = image * every + first + column
    scale = tl.load(scales + place, mask=column < channels, other=0)
    offset = tl.load(offsets + place, mask=column < channels, other=0)
    values = values * scale[None] + offset[None]
    if ACTIVE:
        values = values * tl.sigmoid(values)
    tl.store(out + pixel * every + first + column[None], (values * factor).to(out.dtype.element_ty), mask=inside)


def group_norm(
    x: Tensor,
    norm: torch.nn.GroupNorm,
    shift: Tensor | None = None,
    *,
    silu: bool,
    form: Form | None = None,
    beside: Tensor | None = None,
) -> Tensor:
    """norm(x + shift), and SiLU of it. x [n, C, H, W], channels last; shift [n, C]: what was not yet added to x.

    Each image's shifts lie side by side; one image's may be all images'. beside: more channels, behind those of x.
    """
    parts = [x] if beside is None else [x, beside]
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in parts)
    n, _, height, width = x.shape
    rows, groups, every = height * width, norm.num_groups, norm.num_channels
    chunks = triton.cdiv(rows, _ROWS)
    moments = x.new_empty((n, chunks, 2, every), dtype=torch.float32)
    scales, offsets = x.new_empty((2, n, every), dtype=torch.float32)
    for part, tiles, *own in _tiles(parts, chunks):
        _moments[tiles](part, moments, rows, *own, every, _ROWS, _COLUMNS)
    each = every // groups
    shape = (each, triton.next_power_of_2(each), _ROWS, min(256, triton.next_power_of_2(chunks)), shift is not None)
    shifts = (x, 0) if shift is None else (shift, shift.stride(0))
    parameters = (*shifts, norm.weight, norm.bias, scales, offsets)
    _affine[(groups, n)](moments, *parameters, rows, every, chunks, norm.eps, *shape)
    dtype, factor = form or Form(x.dtype)
    out = x.new_empty((n, height, width, every), dtype=dtype).permute(0, 3, 1, 2)
    for part, tiles, *own in _tiles(parts, chunks):
        _normalised[tiles](part, scales, offsets, out, rows, *own, every, factor, _ROWS, _COLUMNS, silu)
    return out


def _tiles(parts: list[Tensor], chunks: int) -> Iterator[Any]:
    """(part, how many tiles it has in each direction, its channels, where they begin among all)."""
    first = 0
    for part in parts:
        channels = part.shape[1]
        yield part, (chunks, triton.cdiv(channels, _COLUMNS), len(part)), channels, first
        first += channels


@triton.jit
def _sum(a, b, bias, out, count, channels, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    total = tl.load(a + at, mask=inside, other=0).to(tl.float32) + tl.load(b + at, mask=inside, other=0).to(tl.float32)
    total += tl.load(bias + at % channels, mask=inside, other=0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


def add(a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
    """a + b + bias: [n, C, H, W], channels last, twice, and [C]. Writes into a."""
    assert a.is_contiguous(memory_format=torch.channels_last)
    assert b.is_contiguous(memory_format=torch.channels_last)
    _sum[(triton.cdiv(a.numel(), 2048),)](a, b, bias, a, a.numel(), len(bias), 2048)
    return a


@triton.jit
def _layer_norm(
    x,
    delta,
    weight,
    bias,
    out,
    rows,
    channels,
    epsilon,
    factor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ADDS: tl.constexpr,
):
    """A few whole rows."""
    row, column = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    real = column < channels
    inside = (row < rows)[:, None] & real[None]
    place = row[:, None] * channels + column[None]
    values = tl.load(x + place, mask=inside, other=0).to(tl.float32)
    if ADDS:
        total = (values + tl.load(delta + place, mask=inside, other=0).to(tl.float32)).to(x.dtype.element_ty)
        tl.store(x + place, total, mask=inside)
        values = total.to(tl.float32)
    mean = tl.sum(values, 1) / channels
    deviations = tl.where(inside, values - mean[:, None], 0)
    variance = tl.sum(deviations * deviations, 1) / channels
    values = deviations / tl.sqrt(variance + epsilon)[:, None]
    values = values * tl.load(weight + column, mask=real, other=0).to(tl.float32)[None]
    values = (values + tl.load(bias + column, mask=real, other=0).to(tl.float32)[None]) * factor
    tl.store(out + place, values.to(out.dtype.element_ty), mask=inside)


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm, delta: Tensor | None = None, form: Form | None = None) -> Tensor:
    """norm(x + delta), and x becomes x + delta. [m, C]. form: of what is returned; None: x's."""
    assert x.is_contiguous()
    assert delta is None or delta.is_contiguous()
    rows, channels = x.shape
    dtype, factor = form or Form(x.dtype)
    out = torch.empty_like(x, dtype=dtype)
    numbers = (x if delta is None else delta, norm.weight, norm.bias, out, rows, channels, norm.eps, factor)
    tile = (4, triton.next_power_of_2(channels), delta is not None)
    _layer_norm[(triton.cdiv(rows, 4),)](x, *numbers, *tile)
    return out


@triton.jit
def _converted(x, out, count, factor, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at, mask=at < count, other=0).to(tl.float32) * factor
    tl.store(out + at, values.to(out.dtype.element_ty), mask=at < count)


def converted(x: Tensor, form: Form) -> Tensor:
    """x in another form; itself, if it has it already."""
    if form == Form(x.dtype):
        return x
    assert x.is_contiguous()
    out = torch.empty_like(x, dtype=form.dtype)
    _converted[(triton.cdiv(x.numel(), 4096),)](x, out, x.numel(), form.factor, 4096)
    return out


@triton.jit
def _gelu_gated(x, out, rows, inner, factor, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < inner)[None]
    place = row[:, None] * 2 * inner + column[None]
    value = tl.load(x + place, mask=inside, other=0).to(tl.float32)
    gate = tl.load(x + place + inner, mask=inside, other=0).to(tl.float32)
    # the normal distribution's tail, by Abramowitz and Stegun's 7.1.26: 7e-8 off at most, and much faster than erf
    t = 1 / (1 + 0.2316418882 * tl.abs(gate))
    tail = ((((0.5307027145 * t - 0.7265760135) * t + 0.7107068705) * t - 0.1422483680) * t + 0.127414796) * t
    tail *= tl.exp2(gate * gate * -0.7213475204444817)
    value = value * gate * tl.where(gate < 0, tail, 1 - tail) * factor
    tl.store(out + row[:, None] * inner + column[None], value.to(out.dtype.element_ty), mask=inside)


def gelu_gated(x: Tensor, form: Form | None = None) -> Tensor:
    """GEGLU's second half: of [m, 2 * inner], the first half times GELU of the second. form: None for x's."""
    assert x.is_contiguous()
    rows, inner = len(x), x.shape[1] // 2
    dtype, factor = form or Form(x.dtype)
    out = x.new_empty((rows, inner), dtype=dtype)
    _gelu_gated[(triton.cdiv(rows, 4), triton.cdiv(inner, 512))](x, out, rows, inner, factor, 4, 512)
    return out
