"""Triton kernels for GPT-J on a GPU: all that is done between two matrix products, and attention of beams over what a
sample keeps in its row of the cache.

Sums are in float32; where the plain network (`model`) rounds to its number format, so do these. Without a GPU Triton
can interpret them.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096  # channels at once
_LEAST = 16  # rows of a matrix product
_KEYS = 32  # of a block
_PROGRAMS = 528  # 4 for each processor of an H100: fewer leave some of them without work


@triton.jit
def _norm(x, delta, weight, bias, out, epsilon, width, ADD: tl.constexpr, BLOCK: tl.constexpr):
    """x += delta; out = the layer norm of x. One row; BLOCK is at least as wide."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    real = at < width
    wide = tl.load(x + row * width + at, mask=real, other=0.0).to(tl.float32)
    if ADD:
        wide += tl.load(delta + row * width + at, mask=real, other=0.0).to(tl.float32)
        tl.store(x + row * width + at, wide.to(x.dtype.element_ty), mask=real)
        wide = wide.to(x.dtype.element_ty).to(tl.float32)
    wide = tl.where(real, wide - tl.sum(wide) / width, 0.0)
    wide = wide * tl.rsqrt(tl.sum(wide * wide) / width + epsilon)
    made = wide * tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
    made += tl.load(bias + at, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, made.to(out.dtype.element_ty), mask=real)


@triton.jit
def _turn(
    columns,
    stride,
    cosines,
    sines,
    positions,
    slots,
    places,
    queries,
    keys,
    values,
    out,
    out_stride,
    inner,
    PLACES: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One token and one head: query and key are turned, key and value go to their place in the cache. Beyond the heads:
    a block of the MLP's inner channels, which go through GELU to `out`, behind what attention will put there."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    width: tl.constexpr = HEADS * SIZE
    columns += token * stride
    if head < HEADS:
        channel = tl.arange(0, PADDED)
        real, turns = channel < SIZE, channel < 2 * HALF
        angle = tl.load(positions + token) * HALF + channel // 2
        cosine = tl.load(cosines + angle, mask=turns, other=1.0)
        sine = tl.load(sines + angle, mask=turns, other=0.0)
        sine = tl.where(channel % 2 == 0, -sine, sine)
        pair = tl.where(turns, channel ^ 1, channel)  # neighbours are turned together
        at = head * SIZE + channel
        other = head * SIZE + pair
        query = tl.load(columns + at, mask=real, other=0.0).to(tl.float32) * cosine
        query += tl.load(columns + other, mask=real, other=0.0).to(tl.float32) * sine
        tl.store(queries + token * width + at, query.to(queries.dtype.element_ty), mask=real)
        key = tl.load(columns + width + at, mask=real, other=0.0).to(tl.float32) * cosine
        key += tl.load(columns + width + other, mask=real, other=0.0).to(tl.float32) * sine
        slot, place = tl.load(slots + token).to(tl.int64), tl.load(places + token).to(tl.int64)
        to = ((slot * HEADS + head) * PLACES + place) * SIZE + channel
        tl.store(keys + to, key.to(keys.dtype.element_ty), mask=real)
        tl.store(values + to, tl.load(columns + 2 * width + at, mask=real, other=0.0), mask=real)
    else:
        lane = (head - HEADS) * BLOCK + tl.arange(0, BLOCK)
        deep = tl.load(columns + 3 * width + lane, mask=lane < inner, other=0.0).to(tl.float32)
        slope = 0.7978845608028654 * (deep + 0.044715 * deep * deep * deep)  # the root of 2 / pi
        deep = deep / (1.0 + tl.exp(-2.0 * tl.maximum(slope, -40.0)))  # is deep * (1 + tanh(slope)) / 2
        tl.store(out + token * out_stride + width + lane, deep.to(out.dtype.element_ty), mask=lane < inner)


@triton.jit
def _attend(
    queries,
    keys,
    values,
    seen,
    lengths,
    out,
    out_stride,
    parts,
    tops,
    totals,
    scale,
    PLACES: tl.constexpr,
    BEAMS: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    LANES: tl.constexpr,
    KEYS: tl.constexpr,
    SPLITS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """The beams of one sample and one head, over one of SPLITS parts of the sample's row: each key is read once."""
    slot, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    lane, channel = tl.arange(0, LANES), tl.arange(0, PADDED)
    real, held = lane < BEAMS, (lane < BEAMS)[:, None] & (channel < SIZE)[None, :]
    row = slot * BEAMS + lane
    query = tl.load(queries + ((row * HEADS + head) * SIZE)[:, None] + channel[None, :], mask=held, other=0.0)
    kind = query.dtype
    length = tl.load(lengths + slot)
    part = tl.cdiv(tl.cdiv(length, SPLITS), KEYS) * KEYS
    end = tl.minimum((split + 1) * part, length)
    top = tl.full((LANES,), -1e30, tl.float32)
    total = tl.zeros((LANES,), tl.float32)
    made = tl.zeros((LANES, PADDED), tl.float32)
    first = (slot * HEADS + head) * PLACES
    for start in range(split * part, end, KEYS):
        key = start + tl.arange(0, KEYS)
        known = (key < end)[:, None] & (channel < SIZE)[None, :]
        at = (first + key)[:, None] * SIZE + channel[None, :]
        k = tl.load(keys + at, mask=known, other=0.0)
        v = tl.load(values + at, mask=known, other=0.0)
        sees = real[:, None] & (key < end)[None, :]
        sees = tl.load(seen + row[:, None] * PLACES + key[None, :], mask=sees, other=0) != 0
        if EXACT:
            logit = tl.dot(query, tl.trans(k), input_precision="ieee") * scale
        else:
            logit = tl.dot(query, tl.trans(k)) * scale
        logit = tl.where(sees, logit, -1e30)
        higher = tl.maximum(top, tl.max(logit, 1))
        weight = tl.where(sees, tl.exp2(logit - higher[:, None]), 0.0)
        kept = tl.exp2(top - higher)
        total = total * kept + tl.sum(weight, 1)
        made = made * kept[:, None]
        if EXACT:
            made += tl.dot(weight, v, input_precision="ieee")
        else:
            made += tl.dot(weight.to(kind), v)
        top = higher
    if SPLITS == 1:
        at = row[:, None] * out_stride + head * SIZE + channel[None, :]
        tl.store(out + at, (made / tl.maximum(total, 1e-30)[:, None]).to(out.dtype.element_ty), mask=held)
    else:
        at = (row * HEADS + head) * SPLITS + split
        tl.store(tops + at, top, mask=real)
        tl.store(totals + at, total, mask=real)
        tl.store(parts + at[:, None] * SIZE + channel[None, :], made, mask=held)


@triton.jit
def _join(
    parts,
    tops,
    totals,
    out,
    out_stride,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One query's parts become one."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    split, channel = tl.arange(0, SPLITS), tl.arange(0, PADDED)
    at = (row * HEADS + head) * SPLITS + split
    top = tl.load(tops + at)
    share = tl.exp2(top - tl.max(top))
    total = tl.maximum(tl.sum(share * tl.load(totals + at)), 1e-30)
    real = channel < SIZE
    part = tl.load(parts + at[:, None] * SIZE + channel[None, :], mask=real[None, :], other=0.0)
    made = tl.sum(part * share[:, None], 0) / total
    tl.store(out + row * out_stride + head * SIZE + channel, made.to(out.dtype.element_ty), mask=real)


# Twin of: benchmarks/llama2_70b/bench_llama2_70b/pytorch/kernels.py::_power
def _power(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def normed(x: Tensor, delta: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """The layer norm of x [T, d], to which delta is added before, in place."""
    out, (count, width) = torch.empty_like(x), x.shape
    added = x if delta is None else delta
    _norm[(count,)](
        x, added, weight, bias, out, epsilon, width, ADD=delta is not None, BLOCK=_power(width), num_warps=8
    )
    return out


def turned(
    columns: Tensor,
    turns: tuple[Tensor, Tensor],
    positions: Tensor,
    slots: Tensor,
    places: Tensor,
    keys: Tensor,
    values: Tensor,
    out: Tensor,
) -> Tensor:
    """Queries [T, heads, D], turned. Keys, turned too, and values go to `slots` and `places` [T] of a layer's cache;
    GELU of the MLP's inner channels to the end of out [T, d + inner].

    columns [T, queries, keys, values and inner channels]; turns: cosines and sines [positions, rotary / 2]; keys and
    values: of one layer, [slots, heads, places, D].
    """
    heads, longest, size = keys.shape[1:]
    inner = columns.shape[1] - 3 * heads * size
    queries = columns.new_empty((len(columns), heads, size))
    block = min(_BLOCK, _power(inner))
    _turn[(len(columns), heads + -(-inner // block))](
        columns,
        columns.stride(0),
        *turns,
        positions,
        slots,
        places,
        queries,
        keys,
        values,
        out,
        out.stride(0),
        inner,
        PLACES=longest,
        HEADS=heads,
        SIZE=size,
        PADDED=_power(size),
        HALF=turns[0].shape[1],
        BLOCK=block,
        num_warps=4,
    )
    return queries


def attended(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor, lengths: Tensor, out: Tensor) -> None:
    """Attention of beams into the first columns of out [n * beams, d + ...], of the first n slots.

    queries [n * beams, heads, D]; keys and values: of one layer, [slots, heads, places, D]; seen: bool [slots, beams,
    places]; lengths: int32 [slots], places in use. A row is split among programs where there are too few slots.
    """
    (heads, longest, size), beams = keys.shape[1:], seen.shape[1]
    count = len(queries) // beams
    splits = min(16, _power(-(-_PROGRAMS // (count * heads))))
    made = [out, out, out]
    if splits > 1:
        made = [queries.new_empty(len(queries) * heads * splits * n, dtype=torch.float32) for n in (size, 1, 1)]
    exact = queries.dtype is torch.float32
    _attend[(count, heads, splits)](
        queries,
        keys,
        values,
        seen.view(torch.uint8),
        lengths,
        out,
        out.stride(0),
        *made,
        size**-0.5 * 1.4426950408889634,  # exponents to the base of 2
        PLACES=longest,
        BEAMS=beams,
        HEADS=heads,
        SIZE=size,
        PADDED=max(_LEAST, _power(size)),
        LANES=max(_LEAST, _power(beams)),
        KEYS=_KEYS,
        SPLITS=splits,
        EXACT=exact,
        num_warps=4,
        num_stages=2 if exact else 3,
    )
    if splits > 1:
        grid = (len(queries), heads)
        _join[grid](*made, out, out.stride(0), HEADS=heads, SIZE=size, PADDED=_power(size), SPLITS=splits, num_warps=4)
