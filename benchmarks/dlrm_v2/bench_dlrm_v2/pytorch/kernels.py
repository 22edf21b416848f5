"""The lookup of all tables of a GPU as one Triton kernel. Without a GPU Triton can interpret it."""

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
