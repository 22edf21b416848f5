"""Triton kernels: the lookup of all tables of a GPU, and a layer of the cross network. Triton interprets them too."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench_dlrm_v2.pytorch.tables import Resident

_PAIRS = 16  # of a program: as many rows are fetched at once
_WARPS = 4


@triton.jit(do_not_specialize=["pairs"])  # else a batch of a rounder size would be compiled for while the clock runs
def _sum_rows(
    rows,
    scales,
    indices,
    firsts,
    begins,
    hots,
    columns,
    bags,
    pairs,
    indices_stride,
    bags_stride,
    DIM: tl.constexpr,
    PAIRS: tl.constexpr,
    IS_SCALED: tl.constexpr,
):
    """One program sums the rows of some pairs in one table, in float32."""
    table = tl.program_id(1)
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    is_pair = pair < pairs
    at = pair.to(tl.int64) * indices_stride + tl.load(begins + table)
    first = tl.load(firsts + table)
    column = tl.arange(0, DIM)
    total = tl.zeros((PAIRS, DIM), tl.float32)
    for number in range(tl.load(hots + table)):
        row = first + tl.load(indices + at + number, mask=is_pair, other=0).to(tl.int64)
        values = tl.load(rows + row[:, None] * DIM + column[None, :], mask=is_pair[:, None], other=0).to(tl.float32)
        if IS_SCALED:
            values *= tl.load(scales + row, mask=is_pair, other=0)[:, None]
        total += values
    place = pair.to(tl.int64)[:, None] * bags_stride + tl.load(columns + table) + column[None, :]
    tl.store(bags + place, total.to(bags.dtype.element_ty), mask=is_pair[:, None])


class Lookup:
    """Sums of rows of a GPU's tables, written where the network reads them."""

    def __init__(self, tables: Resident, hots: Sequence[int], columns: Sequence[int]) -> None:
        """hots: indices of a pair into each table of the model. columns: where the bag of each of these tables begins
        in a row of bags."""
        self._tables = tables
        device = tables.rows.device
        begins = [0, *accumulate(hots)]
        self._begins = torch.tensor([begins[table] for table in tables.tables], device=device)
        self._hots = torch.tensor([hots[table] for table in tables.tables], device=device)
        self._firsts = torch.tensor(tables.firsts[:-1], device=device)
        self._columns = torch.tensor(columns, device=device)

    def __call__(self, indices: Tensor, bags: Tensor) -> None:
        """indices: int32 [n, sum of hots], of all tables. bags: [n, width], of which other columns stay."""
        pairs, dim = len(bags), self._tables.rows.shape[1]
        is_scaled = self._tables.scales is not None
        _sum_rows[(triton.cdiv(pairs, _PAIRS), len(self._columns))](
            self._tables.rows,
            self._tables.scales if is_scaled else self._tables.rows,
            indices,
            self._firsts,
            self._begins,
            self._hots,
            self._columns,
            bags,
            pairs,
            indices.stride(0),
            bags.stride(0),
            DIM=dim,
            PAIRS=_PAIRS,
            IS_SCALED=is_scaled,
            num_warps=_WARPS,
        )


_ROWS, _COLUMNS, _INNER = 64, 128, 64  # of a tile of the cross network's output, and of a step of its product


@triton.jit(do_not_specialize=["count"])
def _cross(
    start,
    low,
    weight,
    bias,
    values,
    crossed,
    count,
    WIDTH: tl.constexpr,
    RANK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
):
    """One program computes one tile. start and values are asked for before the product, and there when it is done."""
    tiles: tl.constexpr = (WIDTH + COLUMNS - 1) // COLUMNS
    row = (tl.program_id(0) // tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    inner = tl.arange(0, INNER)
    is_row, is_column = (row < count)[:, None], (column < WIDTH)[None, :]
    at = row[:, None] * WIDTH + column[None, :]
    first = tl.load(start + at, mask=is_row & is_column, other=0)
    before = tl.load(values + at, mask=is_row & is_column, other=0)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(0, RANK, INNER):
        is_inner = step + inner < RANK
        x = tl.load(low + row[:, None] * RANK + (step + inner)[None, :], mask=is_row & is_inner[None, :], other=0)
        w = weight + column[None, :] * RANK + (step + inner)[:, None]
        total = tl.dot(x, tl.load(w, mask=is_inner[:, None] & is_column, other=0), total)
    total += tl.load(bias + column, mask=column < WIDTH, other=0).to(tl.float32)[None, :]
    total = first.to(tl.float32) * total + before.to(tl.float32)
    tl.store(crossed + at, total.to(crossed.dtype.element_ty), mask=is_row & is_column)


def cross(start: Tensor, low: Tensor, weight: Tensor, bias: Tensor, values: Tensor) -> Tensor:
    """start * (weight low + bias) + values, all [n, width] but low [n, rank] and weight [width, rank]."""
    crossed = torch.empty_like(start)
    _cross[(triton.cdiv(len(start), _ROWS) * triton.cdiv(start.shape[1], _COLUMNS),)](
        start,
        low,
        weight,
        bias,
        values,
        crossed,
        len(start),
        WIDTH=start.shape[1],
        RANK=low.shape[1],
        ROWS=_ROWS,
        COLUMNS=_COLUMNS,
        INNER=_INNER,
        num_warps=4,
        num_stages=3,
    )
    return crossed
