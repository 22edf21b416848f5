"""Triton kernels for Llama on a GPU: all that is done between two matrix products, and attention over pages in place.

Rows are tokens. Sums are in float32; where the plain network (`model`) rounds to its number format, so do these.
Without a GPU Triton can interpret them.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096  # channels at once
_LANES = 128  # rows of a tile of a prompt: its tokens times the queries that share a key
_LEAST = 16  # rows of a matrix product
_KEYS, _WARPS, _STAGES = 64, 2, 3  # keys of a block, and how a GPU works on it
_KINDS = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
"""What attention multiplies in. From 8 bits a GPU makes 16 of float16, not of bfloat16, by one instruction."""
_PROGRAMS = 264  # 2 for each processor of an H100: fewer leave some of them without work


class Rows(NamedTuple):
    """What a matrix is multiplied with."""

    values: Tensor
    """[T, channels], in the network's format or in e4m3."""
    scales: Tensor | None = None
    """[T, 1] in float32, of e4m3."""


class Tiles(NamedTuple):
    """Queries that one program attends with: some tokens in a row of one request, one of a request that generates.

    All int32 [n], of each tile.
    """

    rows: Tensor
    """Whose pages it reads."""
    firsts: Tensor
    """Its first token among those of the step."""
    counts: Tensor
    """Its tokens."""
    positions: Tensor
    """Of its first token, in its request."""


@triton.jit
def _round8(value, scale):
    return tl.minimum(tl.maximum(value / scale, -448.0), 448.0).to(tl.float8e4nv)


@triton.jit
def _norm(x, delta, weight, out, scales, epsilon, width, EIGHT: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr):
    """x += delta; out = the RMS norm of x. One row; BLOCK is at least as wide."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    real = at < width
    value = tl.load(x + row * width + at, mask=real, other=0.0)
    kind = value.dtype
    if ADD:
        more = tl.load(delta + row * width + at, mask=real, other=0.0)
        value = (value.to(tl.float32) + more.to(tl.float32)).to(kind)
        tl.store(x + row * width + at, value, mask=real)
    wide = value.to(tl.float32)
    wide = wide * tl.rsqrt(tl.sum(wide * wide) / width + epsilon)
    made = wide.to(kind).to(tl.float32) * tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
    if EIGHT:
        wide = made.to(kind).to(tl.float32)
        scale = tl.maximum(tl.max(tl.abs(wide)), 1e-12) / 448.0
        tl.store(scales + row, scale)
        tl.store(out + row * width + at, _round8(wide, scale), mask=real)
    else:
        tl.store(out + row * width + at, made.to(kind), mask=real)


@triton.jit
def _gate(both, at, width, real):
    """silu(gate) * up, rounded as often as the plain network rounds."""
    gate, up = tl.load(both + at, mask=real, other=0.0), tl.load(both + width + at, mask=real, other=0.0)
    wide = gate.to(tl.float32)
    wide = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype).to(tl.float32)
    return (wide * up.to(tl.float32)).to(gate.dtype)


@triton.jit
def _gated(both, out, scales, width, EIGHT: tl.constexpr, BLOCK: tl.constexpr):
    """One row. In 8 bits it is read twice, the second time from the cache: its scale comes first."""
    row = tl.program_id(0).to(tl.int64)
    scale = 1.0
    both += row * 2 * width
    if EIGHT:
        most = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, width, BLOCK):
            at = start + tl.arange(0, BLOCK)
            most = tl.maximum(most, tl.abs(_gate(both, at, width, at < width).to(tl.float32)))
        scale = tl.maximum(tl.max(most), 1e-12) / 448.0
        tl.store(scales + row, scale)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        made = _gate(both, at, width, at < width)
        if EIGHT:
            tl.store(out + row * width + at, _round8(made.to(tl.float32), scale), mask=at < width)
        else:
            tl.store(out + row * width + at, made, mask=at < width)


@triton.jit
def _rounded(x, out, scales, width, BLOCK: tl.constexpr):
    """One row, at most BLOCK wide, to 8 bits."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    wide = tl.load(x + row * width + at, mask=at < width, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(wide)), 1e-12) / 448.0
    tl.store(scales + row, scale)
    tl.store(out + row * width + at, _round8(wide, scale), mask=at < width)


@triton.jit
def _turn(
    columns,
    cosines,
    sines,
    positions,
    places,
    queries,
    keys,
    values,
    GROUPS: tl.constexpr,
    SHARED: tl.constexpr,
    LANES: tl.constexpr,
    HALF: tl.constexpr,
    PADDED: tl.constexpr,
    PAGE: tl.constexpr,
):
    """One token and one key-value head: queries and key are turned, key and value go to their place in the cache."""
    token, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    size: tl.constexpr = 2 * HALF
    channel = tl.arange(0, PADDED)
    half = channel < HALF
    position = tl.load(positions + token)
    place = tl.load(places + token).to(tl.int64)
    cosine = tl.load(cosines + position * HALF + channel, mask=half, other=0.0)
    sine = tl.load(sines + position * HALF + channel, mask=half, other=0.0)
    columns += token * (GROUPS * (SHARED + 2)) * size

    lane = tl.arange(0, LANES)
    real = (lane < SHARED)[:, None] & half[None, :]
    at = (group * SHARED + lane)[:, None] * size + channel[None, :]
    kind = queries.dtype.element_ty
    first = tl.load(columns + at, mask=real, other=0.0).to(tl.float32)
    second = tl.load(columns + at + HALF, mask=real, other=0.0).to(tl.float32)
    to = queries + token * (GROUPS * SHARED * size) + at
    tl.store(to, (first * cosine[None, :] - second * sine[None, :]).to(kind), mask=real)
    tl.store(to + HALF, (second * cosine[None, :] + first * sine[None, :]).to(kind), mask=real)

    at = (GROUPS * SHARED + group) * size + channel
    first = tl.load(columns + at, mask=half, other=0.0).to(tl.float32)
    second = tl.load(columns + at + HALF, mask=half, other=0.0).to(tl.float32)
    to = ((place // PAGE * GROUPS + group) * PAGE + place % PAGE) * size + channel
    tl.store(keys + to, (first * cosine - second * sine).to(kind).to(keys.dtype.element_ty), mask=half)
    tl.store(keys + to + HALF, (second * cosine + first * sine).to(kind).to(keys.dtype.element_ty), mask=half)
    at += GROUPS * size
    tl.store(values + to, tl.load(columns + at, mask=half, other=0.0).to(values.dtype.element_ty), mask=half)
    second = tl.load(columns + at + HALF, mask=half, other=0.0)
    tl.store(values + to + HALF, second.to(values.dtype.element_ty), mask=half)


@triton.jit(do_not_specialize=["width"])  # it is another in most steps
def _attend(
    queries,
    keys,
    values,
    out,
    parts,
    tops,
    totals,
    rows,
    firsts,
    counts,
    positions,
    pages,
    width,
    scale,
    GROUPS: tl.constexpr,
    SHARED: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,
    LANES: tl.constexpr,
    KEYS: tl.constexpr,
    SPLITS: tl.constexpr,
    EXACT: tl.constexpr,
    KIND: tl.constexpr,
):
    """One tile and one key-value head, over one of SPLITS parts of the context. Lane: a token's query of one head."""
    tile, group, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row, count, position = tl.load(rows + tile).to(tl.int64), tl.load(counts + tile), tl.load(positions + tile)
    lane, channel = tl.arange(0, LANES), tl.arange(0, PADDED)
    token = lane // SHARED
    heads: tl.constexpr = GROUPS * SHARED
    head = (tl.load(firsts + tile).to(tl.int64) + token) * heads + group * SHARED + lane % SHARED
    real = (token < count) & (token < TILE)
    at = head[:, None] * SIZE + channel[None, :]
    held = real[:, None] & (channel < SIZE)[None, :]
    query = tl.load(queries + at, mask=held, other=0.0).to(KIND)
    length = position + tl.minimum(count, TILE)
    part = tl.cdiv(tl.cdiv(length, SPLITS), KEYS) * KEYS
    end = tl.minimum((split + 1) * part, length)
    top = tl.full((LANES,), -1e30, tl.float32)
    total = tl.zeros((LANES,), tl.float32)
    made = tl.zeros((LANES, PADDED), tl.float32)
    for start in range(split * part, end, KEYS):
        key = start + tl.arange(0, KEYS)
        page = tl.load(pages + row * width + key // PAGE, mask=key < end, other=0).to(tl.int64)
        place = ((page * GROUPS + group) * PAGE + key % PAGE) * SIZE
        known = (key < end)[:, None] & (channel < SIZE)[None, :]
        k = tl.load(keys + place[:, None] + channel[None, :], mask=known, other=0.0).to(KIND)
        v = tl.load(values + place[:, None] + channel[None, :], mask=known, other=0.0).to(KIND)
        if EXACT:
            logit = tl.dot(query, tl.trans(k), input_precision="ieee") * scale
        else:
            logit = tl.dot(query, tl.trans(k)) * scale
        seen = (key < end)[None, :] & (key[None, :] <= position + token[:, None])
        logit = tl.where(seen, logit, -1e30)
        higher = tl.maximum(top, tl.max(logit, 1))
        weight = tl.where(seen, tl.exp2(logit - higher[:, None]), 0.0)
        kept = tl.exp2(top - higher)
        total = total * kept + tl.sum(weight, 1)
        made = made * kept[:, None]
        if EXACT:
            made += tl.dot(weight, v, input_precision="ieee")
        else:
            made += tl.dot(weight.to(KIND), v)
        top = higher
    if SPLITS == 1:
        tl.store(out + at, (made / tl.maximum(total, 1e-30)[:, None]).to(out.dtype.element_ty), mask=held)
    else:
        at = head * SPLITS + split
        tl.store(tops + at, top, mask=real)
        tl.store(totals + at, total, mask=real)
        tl.store(parts + at[:, None] * SIZE + channel[None, :], made, mask=held)


@triton.jit
def _join(parts, tops, totals, out, SIZE: tl.constexpr, PADDED: tl.constexpr, SPLITS: tl.constexpr):
    """One query's parts become one."""
    head = tl.program_id(0).to(tl.int64)
    split, channel = tl.arange(0, SPLITS), tl.arange(0, PADDED)
    at = head * SPLITS + split
    top = tl.load(tops + at)
    share = tl.exp2(top - tl.max(top))
    total = tl.sum(share * tl.load(totals + at))
    real = channel < SIZE
    part = tl.load(parts + at[:, None] * SIZE + channel[None, :], mask=real[None, :], other=0.0)
    made = tl.sum(part * share[:, None], 0) / total
    tl.store(out + head * SIZE + channel, made.to(out.dtype.element_ty), mask=real)


def _power(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def _empty8(count: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    values = torch.empty((count, width), dtype=torch.float8_e4m3fn, device=like.device)
    return values, torch.empty((count, 1), dtype=torch.float32, device=like.device)


def normed(x: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float, eight: bool) -> Rows:
    """The RMS norm of x [T, d], to which delta is added before, in place. eight: in e4m3."""
    count, width = x.shape
    out, scales = _empty8(count, width, x) if eight else (torch.empty_like(x), x)
    added = x if delta is None else delta
    _norm[(count,)](
        x,
        added,
        weight,
        out,
        scales,
        epsilon,
        width,
        EIGHT=eight,
        ADD=delta is not None,
        BLOCK=_power(width),
        num_warps=8,
    )
    return Rows(out, scales if eight else None)


def gated(both: Tensor, eight: bool) -> Rows:
    """silu(gate) * up of both [T, gate and up]. eight: in e4m3."""
    count, width = len(both), both.shape[1] // 2
    out, scales = _empty8(count, width, both) if eight else (both.new_empty((count, width)), both)
    _gated[(count,)](both, out, scales, width, EIGHT=eight, BLOCK=min(_BLOCK, _power(width)), num_warps=8)
    return Rows(out, scales if eight else None)


def rounded(x: Tensor, eight: bool) -> Rows:
    """x [T, d] in e4m3 if wanted."""
    if not eight:
        return Rows(x)
    out, scales = _empty8(len(x), x.shape[1], x)
    _rounded[(len(x),)](x, out, scales, x.shape[1], BLOCK=_power(x.shape[1]), num_warps=8)
    return Rows(out, scales)


def turned(
    columns: Tensor, turns: tuple[Tensor, Tensor], positions: Tensor, places: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Queries [T, heads, D], turned. Keys, turned too, and values go to `places` of a layer's cache.

    columns [T, queries, keys and values]; turns: cosines and sines [positions, D / 2]; keys and values: of one layer,
    [pages, key-value heads, tokens of a page, D].
    """
    groups, page, size = keys.shape[1:]
    heads = columns.shape[1] // size - 2 * groups
    queries = columns.new_empty((len(columns), heads, size))
    _turn[(len(columns), groups)](
        columns,
        *turns,
        positions,
        places,
        queries,
        keys,
        values,
        GROUPS=groups,
        SHARED=heads // groups,
        LANES=_power(heads // groups),
        HALF=size // 2,
        PADDED=_power(size // 2),
        PAGE=page,
        num_warps=1,
    )
    return queries


def attended(
    queries: Tensor, keys: Tensor, values: Tensor, tiles: Tiles, pages: Tensor, tokens: int, out: Tensor
) -> None:
    """Attention of a step's queries [T, heads, D] into out, for the tokens that are in `tiles`.

    keys and values: of one layer, as for `turned`. pages: int32 [requests, P]. tokens: the most in a tile; see
    `tile_size`. A context is split among programs where there are too few tiles for a GPU.
    """
    heads, size = queries.shape[1:]
    groups, page = keys.shape[1:3]
    count, shared = len(tiles.rows), heads // groups
    splits = 1
    if tokens == 1:
        splits = min(8, _power(-(-_PROGRAMS // (count * groups))))
    made = [out, out, out]
    if splits > 1:
        made = [queries.new_empty(count * heads * splits * n, dtype=torch.float32) for n in (size, 1, 1)]
    exact = queries.dtype is torch.float32
    _attend[(count, groups, splits)](
        queries,
        keys,
        values,
        out,
        *made,
        *tiles,
        pages,
        pages.stride(0),
        size**-0.5 * 1.4426950408889634,  # exponents to the base of 2
        GROUPS=groups,
        SHARED=shared,
        SIZE=size,
        PADDED=max(_LEAST, _power(size)),
        PAGE=page,
        TILE=tokens,
        LANES=max(_LEAST, _power(tokens * shared)),
        KEYS=_KEYS // 2 if exact else _KEYS,
        SPLITS=splits,
        EXACT=exact,
        KIND=_KINDS[torch.float16 if keys.dtype is torch.float8_e4m3fn and not exact else queries.dtype],
        num_warps=_WARPS if tokens == 1 else 8,
        num_stages=2 if exact else _STAGES,
    )
    if splits > 1:
        grid = (count * heads,)
        _join[grid](*made, out, SIZE=size, PADDED=_power(size), SPLITS=splits, num_warps=2)


def tile_size(shared: int) -> int:
    """Tokens of a tile of a prompt. shared: queries that share a key."""
    return max(1, _LANES // _power(shared))
