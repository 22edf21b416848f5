"""A Triton kernel for attention to few tokens, the prompt's: all of them are read at once."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench_sdxl.pytorch.kernels import Form

_ROWS, _TILES = 128, 4


@triton.jit
def _attend(
    q,
    k,
    v,
    out,
    rows,
    tokens,
    heads,
    scale,
    factor,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
):
    """A few positions of one image, one head: keys and values are read once for several tiles."""
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    token, lane = tl.arange(0, TOKENS), tl.arange(0, LANES)
    real = lane < WIDTH
    said = ((image * heads + head) * tokens + token)[:, None] * WIDTH + lane[None]
    known = (token < tokens)[:, None] & real[None]
    keys, values = tl.load(k + said, mask=known, other=0), tl.load(v + said, mask=known, other=0)
    for tile in range(TILES):
        row = (tl.program_id(0) * TILES + tile) * ROWS + tl.arange(0, ROWS)
        place = ((image * rows + row)[:, None] * heads + head) * WIDTH + lane[None]
        inside = (row < rows)[:, None] & real[None]
        queries = tl.load(q + place, mask=inside, other=0)
        scores = tl.dot(queries, keys.T, input_precision="ieee") * scale
        scores = tl.where((token < tokens)[None], scores, float("-inf"))
        weights = tl.exp2(scores - tl.max(scores, 1)[:, None])
        shares = weights.to(values.dtype)
        total = tl.dot(shares, values, input_precision="ieee") / tl.sum(weights, 1)[:, None] * factor
        tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


def attend(q: Tensor, context: Tensor, form: Form) -> Tensor:
    """q [n * S, heads * size]; context [2, n, heads, tokens, size], keys and values -> [n * S, heads * size]."""
    _, n, heads, tokens, width = context.shape
    rows = len(q) // n
    out = torch.empty_like(q, dtype=form.dtype)
    scale = width**-0.5 * 1.4426950408889634  # of e, as powers of 2 are what a GPU computes
    sizes = (width, max(16, triton.next_power_of_2(width)), max(16, triton.next_power_of_2(tokens)), _ROWS, _TILES)
    grid = (triton.cdiv(rows, _ROWS * _TILES), heads, n)
    _attend[grid](q, context[0], context[1], out, rows, tokens, heads, scale, form.factor, *sizes)
    return out
