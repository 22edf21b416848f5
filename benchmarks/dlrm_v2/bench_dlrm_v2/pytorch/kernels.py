"""The lookup of all tables of a GPU as one Triton kernel. Without a GPU Triton can interpret it."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench_dlrm_v2.pytorch.tables import Resident

_PAIRS = 16  # of a program: as many rows are fetched at once
_WARPS = 4


@triton.jit
def _sum_rows(
    rows,
    scales,
    indices,
    firsts,
    begins,
    columns,
    bags,
    pairs,
    stride,
    DIM: tl.constexpr,
    PAIRS: tl.constexpr,
    IS_SCALED: tl.constexpr,
):
    """One program sums the rows of some pairs in one table, in float32."""
    table = tl.program_id(1)
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    is_pair = pair < pairs
    begin = tl.load(begins + table)
    hot = tl.load(begins + table + 1) - begin
    at = begin.to(tl.int64) * pairs + pair.to(tl.int64) * hot
    first = tl.load(firsts + table)
    column = tl.arange(0, DIM)
    total = tl.zeros((PAIRS, DIM), tl.float32)
    for number in range(hot):
        row = first + tl.load(indices + at + number, mask=is_pair, other=0).to(tl.int64)
        values = tl.load(rows + row[:, None] * DIM + column[None, :], mask=is_pair[:, None], other=0).to(tl.float32)
        if IS_SCALED:
            values *= tl.load(scales + row, mask=is_pair, other=0)[:, None]
        total += values
    place = pair.to(tl.int64)[:, None] * stride + tl.load(columns + table) + column[None, :]
    tl.store(bags + place, total.to(bags.dtype.element_ty), mask=is_pair[:, None])


class Lookup:
    """Sums of rows of a GPU's tables, written where the network reads them."""

    def __init__(self, tables: Resident, hots: list[int], columns: list[int]) -> None:
        """hots: indices of a pair into each of these tables. columns: where a table's bag begins in a row of bags."""
        self._tables = tables
        self.begins = torch.tensor([0, *hots], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        device = tables.rows.device
        self._begins = self.begins.to(device)
        self._firsts = torch.tensor(tables.firsts[:-1], dtype=torch.int64, device=device)
        self._columns = torch.tensor(columns, dtype=torch.int64, device=device)

    def __call__(self, indices: Tensor, bags: Tensor) -> None:
        """indices: int32, a block [n, hot] of each table, one after another. bags: [n, width]; other columns stay."""
        pairs, dim = len(bags), self._tables.rows.shape[1]
        scales = self._tables.rows if self._tables.scales is None else self._tables.scales
        _sum_rows[(triton.cdiv(pairs, _PAIRS), len(self._columns))](
            self._tables.rows,
            scales,
            indices,
            self._firsts,
            self._begins,
            self._columns,
            bags,
            pairs,
            bags.stride(0),
            DIM=dim,
            PAIRS=_PAIRS,
            IS_SCALED=self._tables.scales is not None,
            num_warps=_WARPS,
        )
