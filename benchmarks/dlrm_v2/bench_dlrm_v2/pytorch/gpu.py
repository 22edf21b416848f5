"""A stream of batches through one GPU, or several that share the tables.

While a batch is computed, the indices of the next one are collected in page-locked memory and copied. All tables of a
GPU are one kernel. Each GPU sums its own tables' rows; the first gets the sums and computes the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from bench_dlrm_v2.batch import F32, Batch
from bench_dlrm_v2.model import Dense
from bench_dlrm_v2.pytorch.kernels import Lookup
from bench_dlrm_v2.pytorch.source import Source
from bench_dlrm_v2.pytorch.tables import Resident, spread
from loadgen.contracts import BackendOptions

_SLOTS = 3
"""Batches on the way: one computed, one copied, one collected."""
_PAIRS_OF_A_SAMPLE = 270  # on average: page-locked memory is taken for so many, and for more when they come


class Pipeline:
    """One thread calls `submit`; it waits for the GPU only if `_SLOTS` batches are under way."""

    def __init__(
        self,
        network: Dense,
        source: Source,
        stored: torch.dtype,
        devices: Sequence[torch.device],
        options: BackendOptions,
    ) -> None:
        """Raises InputError for files, and if the tables do not fit."""
        self._config, self._main = source.config, devices[0]
        self._dtype: torch.dtype = next(network.parameters()).dtype
        shares = spread(source.config, len(devices))
        self._parts = [
            _Part(Resident(source, share, stored, device)) for share, device in zip(shares, devices, strict=True)
        ]
        is_compiled = self._dtype != torch.float32
        self._network: Any = torch.compile(network, dynamic=True) if is_compiled else network
        pairs = options.max_cost or options.max_batch * _PAIRS_OF_A_SAMPLE
        self._slots = [_Slot(pairs) for _ in range(_SLOTS)]
        self._turn = 0
        self._waiter = ThreadPoolExecutor(1, "gpu-answers")

    def submit(self, batch: Batch) -> Future[F32]:
        """The future of probabilities [pairs]."""
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % _SLOTS
        slot.wait()
        pairs = len(batch)
        dense, *indices = slot.collect(batch, [part.tables.tables for part in self._parts])
        stream: Any = torch.cuda.current_stream(self._main)
        bags = torch.empty((pairs, len(self._config.rows) * self._config.dim), dtype=self._dtype, device=self._main)
        hots = [ids.shape[1] for ids in batch.source.indices]
        for part, ids in zip(self._parts, indices, strict=True):
            part.look_up(ids, hots, bags, stream)
        with torch.cuda.device(self._main):
            there = dense.to(self._main, non_blocking=True).to(self._dtype)  # together a CPU would convert, and wait
            answers = self._network(there, bags)
            host = torch.empty(pairs, pin_memory=True).copy_(answers, non_blocking=True)
            slot.done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            slot.done.record()
        return self._waiter.submit(_finish, slot.done, host)

    def close(self) -> None:
        """Waits for what is under way."""
        self._waiter.shutdown()
        self._parts.clear()


def _finish(done: Any, answers: Tensor) -> F32:
    done.synchronize()
    values: F32 = answers.numpy()
    return values


class _Part:
    """The tables of one GPU."""

    def __init__(self, tables: Resident) -> None:
        self.tables = tables
        self._device = tables.rows.device
        self._copying: Any = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._lookups: dict[tuple[tuple[int, ...], bool], Lookup] = {}

    def look_up(self, indices: Tensor, hots: list[int], bags: Tensor, stream: Any) -> None:
        """Write the tables' columns of `bags`, on the stream of the GPU that those are on."""
        is_main = bags.device == self._device
        with torch.cuda.device(self._device):
            with torch.cuda.stream(self._copying):
                copied = indices.to(self._device, non_blocking=True)
            own: Any = torch.cuda.current_stream(self._device)
            own.wait_stream(self._copying)
            copied.record_stream(own)
            dim = self.tables.rows.shape[1]
            if is_main:
                self._lookup(hots, dim, is_main)(copied, bags)
                return
            sums = torch.empty((len(bags), dim * len(self.tables.tables)), dtype=bags.dtype, device=self._device)
            self._lookup(hots, dim, is_main)(copied, sums)
        stream.wait_stream(own)
        there = sums.to(bags.device, non_blocking=True)
        for at, table in enumerate(self.tables.tables):
            bags[:, table * dim : (table + 1) * dim] = there[:, at * dim : (at + 1) * dim]

    def _lookup(self, hots: list[int], dim: int, is_main: bool) -> Lookup:
        own = tuple(hots[table] for table in self.tables.tables)
        if (own, is_main) not in self._lookups:
            places = self.tables.tables if is_main else range(len(own))
            self._lookups[own, is_main] = Lookup(self.tables, list(own), [dim * place for place in places])
        return self._lookups[own, is_main]


class _Slot:
    """Page-locked memory of one batch on its way."""

    def __init__(self, pairs: int) -> None:
        self._pairs = pairs
        self._dense = self._indices = torch.empty(0)
        self.done: Any = None

    def wait(self) -> None:
        """Until the last batch has been read from here."""
        if self.done is not None:
            self.done.synchronize()

    def collect(self, batch: Batch, shares: Sequence[Sequence[int]]) -> list[Tensor]:
        """dense [n, 13], and for each share of the tables its indices, table after table."""
        pairs, source = len(batch), batch.source
        self._make_room(pairs, source.dense.shape[1], sum(ids.shape[1] for ids in source.indices))
        return collect(batch, shares, self._dense, self._indices)

    def _make_room(self, pairs: int, features: int, hots: int) -> None:
        if len(self._dense) < max(pairs, self._pairs) * features or len(self._indices) < self._pairs * hots:
            self._pairs = max(pairs, self._pairs)
            self._dense = torch.empty(self._pairs * features, pin_memory=True)
            self._indices = torch.empty(self._pairs * hots, dtype=torch.int32, pin_memory=True)


def collect(batch: Batch, shares: Sequence[Sequence[int]], dense: Tensor, indices: Tensor) -> list[Tensor]:
    """Copy a batch out of the data into two flat buffers; PyTorch's threads share the work.

    Returns their used parts: dense [n, 13], and for each share of the tables its indices, table after table.
    """
    pairs, rows = len(batch), torch.from_numpy(batch.rows)

    def take(column: Any, out: Tensor) -> Tensor:
        width = column.shape[1]
        return torch.index_select(torch.from_numpy(column), 0, rows, out=out[: pairs * width].view(pairs, width))

    parts, at = [take(batch.source.dense, dense)], 0
    for share in shares:
        begin = at
        for table in share:
            at += take(batch.source.indices[table], indices[at:]).numel()
        parts.append(indices[begin:at])
    return parts
