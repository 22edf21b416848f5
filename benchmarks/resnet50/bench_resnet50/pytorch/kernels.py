"""Triton kernels for ResNet-50 in 16 bits on a GPU: what cuDNN leaves on the table there.

ResNet-50 in bfloat16 is bound by memory: its activations, written and read again, take longer than its arithmetic. So
each kernel does all that can be done with a value before it goes back to memory. Activations are [pixels, channels],
pixels in the order image, row, column; weights are [inputs, outputs]; sums are in float32.
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
_PROGRAMS = 512  # 4 for each processor of an H100


class Joint(NamedTuple):
    """What lies between the first convolutions of two bottlenecks, folded, as [inputs, outputs]."""

    taps: Tensor
    """[9 * inner, inner] of the 3x3 convolution."""
    taps_bias: Tensor
    expansion: Tensor
    bias: Tensor
    """Of the expansion, and of the projection if there is one."""
    projection: Tensor | None
    """Of the block's input; None: it is added as it is."""
    following: Tensor
    """The next block's first convolution."""
    following_bias: Tensor


@triton.jit
def _fetch(named, out, words: tl.constexpr, block: tl.constexpr, programs: tl.constexpr):
    """Programs are few and go on to the next part: all wait for the bus, and others compute meanwhile."""
    parts: tl.constexpr = (words + block - 1) // block
    source = tl.multiple_of(tl.load(named).to(tl.pointer_type(tl.int64)), 16)  # so that 16 bytes are loaded at a time
    count = tl.load(named + 1)
    for number in range((count * parts + programs - 1) // programs):
        item = number * programs + tl.program_id(0)
        image, at = item // parts, item % parts * block + tl.arange(0, block)
        real = at < tl.where(image < count, words, 0)
        row = tl.load(named + 2 + tl.minimum(image, count - 1))
        value = tl.load(source + row * words + at, mask=real)
        tl.store(out + image * words + at, value, mask=real)


@triton.jit
def _fill(pixels, mean, scale, out, side: tl.constexpr, lanes: tl.constexpr):
    """One row of blocks of one image."""
    image, row = tl.program_id(0).to(tl.int64) // side, tl.program_id(0) % side
    lane = tl.arange(0, lanes)
    block, channel = lane // 16, lane % 16
    real = (block < side) & (channel < 12)
    down, along = channel // 6, channel % 6  # 6 numbers of 2 pixels lie side by side
    source = (image * 2 * side + 2 * row + down) * (6 * side) + block * 6 + along
    value = tl.load(pixels + source, mask=real, other=0).to(tl.float32)
    value = (value - tl.load(mean + along % 3)) * tl.load(scale + along % 3)
    target = ((image * (side + 3) + row + 2) * (side + 3) + block + 2) * 16 + channel
    tl.store(out + target, value.to(out.dtype.element_ty), mask=real)


# what is specialised is compiled anew for some sizes of a batch
@triton.jit(do_not_specialize=["tall"])
def _entry(
    x,
    weight,
    bias,
    w1,
    b1,
    out,
    following,
    tall,
    side: tl.constexpr,
    width: tl.constexpr,
    leaving: tl.constexpr,
    lanes: tl.constexpr,
):
    """The stem, the pooling, and the first 1x1 convolution: `tall` rows of the pooled image, one after the other.

    The stem's even and odd columns are computed apart, as a pooled column is the largest of an even one, the odd one
    after it, and the odd one before it. After ReLU nothing is below 0: what lies outside counts as 0, and numbers
    compare as integers of the same bits do.
    """
    half: tl.constexpr = side // 2
    strips = half // tall
    image, first = (tl.program_id(0) // strips).to(tl.int64), tl.program_id(0) % strips * tall
    column, k = tl.arange(0, lanes), tl.arange(0, 64)
    n, p = tl.arange(0, width), tl.arange(0, leaving)
    taps = weight + k[:, None] * width + n[None, :]
    tap: tl.constexpr = 64 * width
    u0, u1, u2, u3 = tl.load(taps), tl.load(taps + tap), tl.load(taps + 2 * tap), tl.load(taps + 3 * tap)
    v = tl.load(w1 + n[:, None] * leaving + p[None, :])
    bias, b1 = tl.load(bias + n)[None, :], tl.load(b1 + p)[None, :]
    moved = (column[:, None] == column[None, :] + 1).to(x.dtype.element_ty)
    real = (column < half)[:, None]
    line: tl.constexpr = (side + 3) * 16
    source = x + (image * (side + 3) + 2 * first) * line + (column * 32)[:, None] + k[None, :]
    above = tl.zeros((lanes, width), tl.int16)
    odd = above
    if first > 0:
        odd = _stem(source - line + 16, u0, u1, u2, u3, bias, real, line)
        above = tl.maximum(_stem(source - line, u0, u1, u2, u3, bias, real, line), odd)
    for row in tl.range(0, tall, num_stages=1):
        even0 = _stem(source + 2 * row * line, u0, u1, u2, u3, bias, real, line)
        odd0 = _stem(source + 2 * row * line + 16, u0, u1, u2, u3, bias, real, line)
        most = tl.maximum(tl.maximum(above, even0), odd0)
        odd0 = tl.maximum(odd, odd0)
        even = _stem(source + (2 * row + 1) * line, u0, u1, u2, u3, bias, real, line)
        odd = _stem(source + (2 * row + 1) * line + 16, u0, u1, u2, u3, bias, real, line)
        above = tl.maximum(even, odd)
        before = tl.dot(moved, tl.maximum(odd0, odd).to(x.dtype.element_ty, bitcast=True)).to(x.dtype.element_ty)
        most = tl.maximum(tl.maximum(most, above), before.to(tl.int16, bitcast=True))
        most = most.to(x.dtype.element_ty, bitcast=True)
        place = (image * half + first + row) * half + column
        tl.store(out + place[:, None] * width + n[None, :], most, mask=real)
        h = tl.maximum(tl.dot(most, v) + b1, 0.0).to(x.dtype.element_ty)
        tl.store(following + place[:, None] * leaving + p[None, :], h, mask=real)


@triton.jit
def _stem(source, u0, u1, u2, u3, bias, real, line: tl.constexpr):
    """One row of every second column, as bits. 4 blocks of a row are 64 numbers side by side, so that each is the
    row of a matrix product."""
    total = tl.dot(tl.load(source, mask=real, other=0.0), u0)
    total = tl.dot(tl.load(source + line, mask=real, other=0.0), u1, total)
    total = tl.dot(tl.load(source + 2 * line, mask=real, other=0.0), u2, total)
    total = tl.dot(tl.load(source + 3 * line, mask=real, other=0.0), u3, total)
    return tl.maximum(total + bias, 0.0).to(u0.dtype).to(tl.int16, bitcast=True)


@triton.jit
def _block(
    x,
    w2,
    b2,
    w3,
    b3,
    before,
    w_before,
    out,
    w1,
    b1,
    following,
    count,
    side: tl.constexpr,
    inner: tl.constexpr,
    outer: tl.constexpr,
    entering: tl.constexpr,
    leaving: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """The rest of a bottleneck after its first convolution, and the first convolution of the next one.

    entering: 0, or the channels of an input that is projected.
    """
    m = tl.program_id(0) * rows + tl.arange(0, rows)
    real = (m < count)[:, None]
    place = m % (side * side)
    down, along = place // side, place % side
    m = m.to(tl.int64)
    c, p, n = tl.arange(0, inner), tl.arange(0, leaving), tl.arange(0, columns)
    middle = tl.zeros((rows, inner), tl.float32)
    for tap in range(9):
        dy, dx = tap // 3 - 1, tap % 3 - 1
        inside = (down + dy >= 0) & (down + dy < side) & (along + dx >= 0) & (along + dx < side)
        a = tl.load(x + (m + dy * side + dx)[:, None] * inner + c[None, :], mask=real & inside[:, None], other=0.0)
        middle = tl.dot(a, tl.load(w2 + (tap * inner + c)[:, None] * inner + c[None, :]), middle)
    middle = tl.maximum(middle + tl.load(b2 + c)[None, :], 0.0).to(x.dtype.element_ty)
    if entering:
        e = tl.arange(0, entering)
        first = tl.load(before + m[:, None] * entering + e[None, :], mask=real, other=0.0)
    same = (n[:, None] == n[None, :]).to(x.dtype.element_ty)
    total = tl.zeros((rows, leaving), tl.float32)
    for n0 in range(0, outer, columns):
        at = n0 + n
        y = tl.dot(middle, tl.load(w3 + c[:, None] * outer + at[None, :]))
        if entering:
            y = tl.dot(first, tl.load(w_before + e[:, None] * outer + at[None, :]), y)
        else:
            # a product with ones on its diagonal: what products need is loaded ahead, and lies as they leave it
            y = tl.dot(tl.load(before + m[:, None] * outer + at[None, :], mask=real, other=0.0), same, y)
        y = tl.maximum(y + tl.load(b3 + at)[None, :], 0.0).to(x.dtype.element_ty)
        tl.store(out + m[:, None] * outer + at[None, :], y, mask=real)
        total = tl.dot(y, tl.load(w1 + at[:, None] * leaving + p[None, :]), total)
    total = tl.maximum(total + tl.load(b1 + p)[None, :], 0.0).to(x.dtype.element_ty)
    tl.store(following + m[:, None] * leaving + p[None, :], total, mask=real)


def fetch(named: Tensor, out: Tensor) -> None:
    """Images from the host's memory into the first of `out`, uint8 [m, H, W, 3], on the GPU.

    named: int64 [2 or more], the address of the images, uint8 [any, H, W, 3], how many to fetch, and their rows there.
    The host's memory is page-locked, also that of `named`.
    """
    words = out[0].numel() // 8
    _fetch[(16,)](named, out.view(-1).view(torch.int64), words, 2048, 16, num_warps=8)


def fill(pixels: Tensor, mean: Tensor, scale: Tensor, out: Tensor) -> None:
    """(uint8 pixels [n, side, side, 3] - mean) * scale into the first n of `out`, the stem's input [m, side / 2 + 3,
    side / 2 + 3, 16], whose border stays as it is."""
    side = pixels.shape[1] // 2
    _fill[(len(pixels) * side,)](pixels, mean, scale, out, side, triton.next_power_of_2(side * CHANNELS))


def entry(x: Tensor, weight: Tensor, bias: Tensor, w1: Tensor, b1: Tensor) -> tuple[Tensor, Tensor]:
    """(pooled, following) [n * side / 2 * side / 2, width or leaving] of the stem's input [n, side + 3, side + 3, 16].

    weight: [256, width] of the 4x4 convolution; w1: [width, leaving] of the first bottleneck's first.
    """
    side, (width, leaving) = x.shape[1] - 3, w1.shape
    half = side // 2
    pooled, following = (x.new_empty((len(x) * half * half, channels)) for channels in (width, leaving))
    # a strip computes one row of the stem that another computes too, but there should be work for all processors
    strips = (tall for tall in (14, 7, 4, 2) if half % tall == 0 and len(x) * half // tall >= _PROGRAMS)
    tall = next(strips, 1)
    lanes = max(16, triton.next_power_of_2(half))
    tensors = x, weight, bias, w1, b1, pooled, following
    _entry[(len(x) * (half // tall),)](*tensors, tall, side, width, leaving, lanes, num_warps=4)
    return pooled, following


def block(x: Tensor, before: Tensor, side: int, joint: Joint) -> tuple[Tensor, Tensor]:
    """(sum, following): what a bottleneck gives whose first convolution gave x [n * side * side, inner], and what the
    next one's first convolution makes of that [n * side * side, leaving].

    before: the block's input. sum: [n * side * side, outer].
    """
    (count, inner), outer, leaving = x.shape, joint.expansion.shape[1], joint.following.shape[1]
    entering = 0 if joint.projection is None else joint.projection.shape[0]
    total, following = x.new_empty((count, outer)), x.new_empty((count, leaving))
    rows, columns = 64, 32  # and 4 warps: of some 40 tried on an H100
    projection = before if joint.projection is None else joint.projection
    tensors = (x, *joint[:4], before, projection, total, *joint[5:], following)
    sizes = (count, side, inner, outer, entering, leaving, rows, columns)
    _block[(triton.cdiv(count, rows),)](*tensors, *sizes, num_warps=4, num_stages=3)
    return total, following
