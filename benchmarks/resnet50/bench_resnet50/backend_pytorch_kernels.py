"""Triton kernels for ResNet-50 in 16 bits on a GPU: what cuDNN leaves on the table there.

ResNet-50 in bfloat16 is bound by memory: its activations, written and read again, take longer than its arithmetic. So
each kernel does all that can be done with a value before it goes back to memory. Activations are [pixels, channels],
pixels in the order image, row, column; weights are [inputs, outputs]; sums are in float32.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench_resnet50.model import Joint

CHANNELS = 16
"""Of the stem's input: 12 of a block of 2x2 pixels, and 4 zeros."""


@triton.jit(
    do_not_specialize=["rounds", "count"]
)  # else some sizes of a batch would be compiled while they are awaited
def _fetch(source, rows, out, rounds, count, words: tl.constexpr, block: tl.constexpr, programs: tl.constexpr):
    """Programs are few and go on to the next part: all wait for the bus, and others compute meanwhile."""
    parts: tl.constexpr = (words + block - 1) // block
    for number in range(rounds):
        item = number * programs + tl.program_id(0)
        image, at = item // parts, item % parts * block + tl.arange(0, block)
        real = (at < words) & (image < count)
        value = tl.load(source + tl.load(rows + image, mask=image < count, other=0) * words + at, mask=real)
        tl.store(out + image.to(tl.int64) * words + at, value, mask=real)


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


@triton.jit
def _stem(x, weight, bias, out, count, side: tl.constexpr, width: tl.constexpr, rows: tl.constexpr):
    """4x4 on blocks: 4 blocks of a row are 64 numbers side by side, so each is the row of a matrix product."""
    m = tl.program_id(0) * rows + tl.arange(0, rows)
    real = (m < count)[:, None]
    image, place = (m // (side * side)).to(tl.int64), m % (side * side)
    begin = ((image * (side + 3) + place // side) * (side + 3) + place % side) * 16
    k, n = tl.arange(0, 64), tl.arange(0, width)
    total = tl.zeros((rows, width), tl.float32)
    for down in range(4):
        a = tl.load(x + begin[:, None] + (down * (side + 3) * 16 + k)[None, :], mask=real, other=0.0)
        total = tl.dot(a, tl.load(weight + (down * 64 + k)[:, None] * width + n[None, :]), total)
    total = tl.maximum(total + tl.load(bias + n)[None, :], 0.0)
    tl.store(out + m.to(tl.int64)[:, None] * width + n[None, :], total.to(out.dtype.element_ty), mask=real)


@triton.jit
def _pool(x, out, count, side: tl.constexpr, width: tl.constexpr, rows: tl.constexpr):
    """The largest of 3x3 with stride 2; all are at least 0, so what lies outside counts as 0."""
    m = tl.program_id(0) * rows + tl.arange(0, rows)
    half: tl.constexpr = side // 2
    image, place = (m // (half * half)).to(tl.int64), m % (half * half)
    n = tl.arange(0, width)
    most = tl.zeros((rows, width), x.dtype.element_ty)
    for tap in tl.static_range(9):
        down, along = place // half * 2 + tap // 3 - 1, place % half * 2 + tap % 3 - 1
        inside = (m < count) & (down >= 0) & (down < side) & (along >= 0) & (along < side)
        begin = ((image * side + down) * side + along) * width
        most = tl.maximum(most, tl.load(x + begin[:, None] + n[None, :], mask=inside[:, None], other=0.0))
    tl.store(out + m.to(tl.int64)[:, None] * width + n[None, :], most, mask=(m < count)[:, None])


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
    quarter: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """The rest of a bottleneck after its first convolution, and the first convolution of the next one.

    entering: 0, or the channels of an input that is projected. quarter: only every second pixel of every second row
    of the sum is wanted.
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
    total = tl.zeros((rows, leaving), tl.float32)
    for n0 in range(0, outer, columns):
        at = n0 + n
        y = tl.dot(middle, tl.load(w3 + c[:, None] * outer + at[None, :]))
        if entering:
            y = tl.dot(first, tl.load(w_before + e[:, None] * outer + at[None, :]), y)
        else:
            y += tl.load(before + m[:, None] * outer + at[None, :], mask=real, other=0.0).to(tl.float32)
        y = tl.maximum(y + tl.load(b3 + at)[None, :], 0.0).to(x.dtype.element_ty)
        if quarter:
            even = (down % 2 == 0) & (along % 2 == 0)
            kept = (m // (side * side) * (side // 2) + down // 2) * (side // 2) + along // 2
            tl.store(out + kept[:, None] * outer + at[None, :], y, mask=real & even[:, None])
        else:
            tl.store(out + m[:, None] * outer + at[None, :], y, mask=real)
        total = tl.dot(y, tl.load(w1 + at[:, None] * leaving + p[None, :]), total)
    total = tl.maximum(total + tl.load(b1 + p)[None, :], 0.0).to(x.dtype.element_ty)
    tl.store(following + m[:, None] * leaving + p[None, :], total, mask=real)


def fetch(source: Tensor, rows: Tensor, out: Tensor) -> None:
    """Images `rows` of source, uint8 [m, H, W, 3] in the host's page-locked memory as `rows` is, into the first of
    `out` on the GPU."""
    words = source[0].numel() // 8
    source, out = (x.view(-1).view(torch.int64) for x in (source, out))
    block, programs = 2048, 16
    rounds = triton.cdiv(len(rows) * triton.cdiv(words, block), programs)
    _fetch[(programs,)](source, rows, out, rounds, len(rows), words, block, programs, num_warps=8)


def fill(pixels: Tensor, mean: Tensor, scale: Tensor, out: Tensor) -> None:
    """(uint8 pixels [n, side, side, 3] - mean) * scale into the first n of `out`, the stem's input [m, side / 2 + 3,
    side / 2 + 3, 16], whose border stays as it is."""
    side = pixels.shape[1] // 2
    _fill[(len(pixels) * side,)](pixels, mean, scale, out, side, triton.next_power_of_2(side * CHANNELS))


def stem(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[n, side + 3, side + 3, 16] -> [n * side * side, width]: 4x4 convolution, ReLU. weight: [256, width]."""
    side, width, rows = x.shape[1] - 3, weight.shape[1], 128
    out = x.new_empty((len(x) * side * side, width))
    _stem[(triton.cdiv(len(out), rows),)](x, weight, bias, out, len(out), side, width, rows, num_warps=4, num_stages=3)
    return out


def pool(x: Tensor, side: int) -> Tensor:
    """[n * side * side, width] -> [n * side / 2 * side / 2, width]."""
    width, rows = x.shape[1], 64
    out = x.new_empty((len(x) // 4, width))
    _pool[(triton.cdiv(len(out), rows),)](x, out, len(out), side, width, rows, num_warps=4)
    return out


def block(x: Tensor, before: Tensor, side: int, joint: Joint, quarter: bool = False) -> tuple[Tensor, Tensor]:
    """(sum, following): what a bottleneck gives whose first convolution gave x [n * side * side, inner], and what the
    next one's first convolution makes of that [n * side * side, leaving].

    before: the block's input. sum: [n * side * side, outer]; with `quarter` every second pixel of every second row.
    """
    (count, inner), outer, leaving = x.shape, joint.expansion.shape[1], joint.following.shape[1]
    entering = 0 if joint.projection is None else joint.projection.shape[0]
    total = x.new_empty((count // 4 if quarter else count, outer))
    following = x.new_empty((count, leaving))
    rows, columns = 64, 64 if not entering and leaving == inner else 32  # the fastest of 13 tried on an H100
    projection = before if joint.projection is None else joint.projection
    tensors = (x, *joint[:4], before, projection, total, *joint[5:], following)
    sizes = (count, side, inner, outer, entering, leaving, quarter, rows, columns)
    _block[(triton.cdiv(count, rows),)](*tensors, *sizes, num_warps=4, num_stages=3)
    return total, following
