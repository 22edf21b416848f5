"""A stream of batches through one GPU, or several that share the tables.

While a batch is computed, the indices of the next one are collected in page-locked memory and copied, and their rows
fetched: computing leaves the memory idle. All tables of a GPU are one kernel. Each GPU sums its own tables' rows; the
first gets the sums and computes the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench_dlrm_v2.batch import F32, Batch, Features
from bench_dlrm_v2.model import Dense
from bench_dlrm_v2.official import DENSE_FEATURES
from bench_dlrm_v2.pytorch.dense import for_gpu
from bench_dlrm_v2.pytorch.kernels import Lookup
from bench_dlrm_v2.pytorch.source import Source
from bench_dlrm_v2.pytorch.tables import Resident, spread
from loadgen.contracts import BackendOptions

_SLOTS = 3
"""Batches on the way: one computed, one copied, one collected."""
_COLLECTORS = 4
"""Threads that copy indices: one copies 4 GB/s, and 30,000 samples have 7 GB; more than four are no faster."""
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
        residents = [Resident(source, share, stored, device) for share, device in zip(shares, devices, strict=True)]
        width = self._config.width
        self._parts = [_Part(tables, self._dtype, 0 if at else width) for at, tables in enumerate(residents)]
        self._network = for_gpu(network, self._config.dim)
        self.pairs = options.max_cost or options.max_batch * _PAIRS_OF_A_SAMPLE
        """That a batch is expected to have at most."""
        self._slots = [_Slot() for _ in range(_SLOTS)]
        self._turn = 0
        self._collectors = ThreadPoolExecutor(_COLLECTORS, "collector")
        self._waiter = ThreadPoolExecutor(1, "gpu-answers")

    def submit(self, batch: Batch) -> Future[F32]:
        """The future of probabilities [pairs]."""
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % _SLOTS
        slot.wait()
        if not slot.has_room(batch):
            self._make_room(batch)
        dense, indices = slot.collect(batch, self._collectors)
        stream: Any = torch.cuda.current_stream(self._main)
        sums = [part.look_up(indices, batch.hots) for part in self._parts]
        for part, others in zip(self._parts, sums, strict=True):
            part.hand_over(others, sums[0], stream)
        with torch.cuda.device(self._main):
            there = dense.to(self._main, non_blocking=True).to(self._dtype)  # together a CPU would convert, and wait
            answers = self._network(there, sums[0])
            host = _page_locked((len(answers),), torch.float32).copy_(answers, non_blocking=True)
            slot.done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            slot.done.record()
        return self._waiter.submit(_finish, slot.done, host)

    def _make_room(self, batch: Batch) -> None:
        """In all slots at once. A loaded sample that is computed before the clock runs shows how many indices a pair
        has, and page-locked memory is slow to get: 0.1 s for each slot."""
        self.pairs = max(self.pairs, len(batch))
        is_new = any(slot.hots != batch.hots for slot in self._slots)
        for slot in self._slots:
            slot.wait()
            slot.take(self.pairs, batch.hots)
        if is_new:
            self._rehearse(batch.hots)

    def _rehearse(self, hots: tuple[int, ...]) -> None:
        """Batches of many sizes, several under way: a GPU loads each kernel when it first needs it, and takes memory,
        which delayed a test's first answers by 0.1 s."""
        features = Features(
            np.zeros((self.pairs, DENSE_FEATURES), np.float32), np.zeros((self.pairs, sum(hots)), np.int32), hots
        )
        sizes = [self.pairs >> halvings for halvings in range(self.pairs.bit_length())]
        batches = [Batch(features, np.zeros(1, np.int64), np.array([size])) for size in sizes[:1] * _SLOTS + sizes]
        for answer in [self.submit(batch) for batch in batches]:
            answer.result()

    def close(self) -> None:
        """Waits for what is under way."""
        self._waiter.shutdown()
        self._collectors.shutdown()
        self._parts.clear()


def _finish(done: Any, answers: Tensor) -> F32:
    done.synchronize()
    values: F32 = answers.numpy()
    return values


class _Part:
    """The tables of one GPU."""

    def __init__(self, tables: Resident, dtype: torch.dtype, width: int) -> None:
        """dtype: of the sums. width: of what they are written into, after room for the bottom's output; 0: of the sums
        alone, as the rest of the model lies on another GPU."""
        self._tables, self._dtype, self._is_main = tables, dtype, bool(width)
        self._device, self._dim = tables.rows.device, tables.rows.shape[1]
        self._width = width or len(tables.tables) * self._dim
        self._own: Any = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._own.wait_stream(torch.cuda.current_stream(self._device))  # which has made the tables
        self._lookups: dict[tuple[int, ...], Lookup] = {}

    def look_up(self, indices: Tensor, hots: tuple[int, ...]) -> Tensor:
        """Sums of the tables' rows, on a stream of its own: rows are fetched while the batch before is computed."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._own):
            sums = torch.empty((len(indices), self._width), dtype=self._dtype, device=self._device)
            self._lookup(hots)(indices.to(self._device, non_blocking=True), sums)
        return sums

    def hand_over(self, sums: Tensor, start: Tensor, stream: Any) -> None:
        """To the main GPU's stream, and into the tables' columns of its sums, where other GPUs' are still missing."""
        stream.wait_stream(self._own)
        sums.record_stream(stream if self._is_main else torch.cuda.current_stream(self._device))
        if not self._is_main:
            there = sums.to(start.device, non_blocking=True)
            for at, table in enumerate(self._tables.tables):
                start[:, (1 + table) * self._dim :][:, : self._dim] = there[:, at * self._dim :][:, : self._dim]

    def _lookup(self, hots: tuple[int, ...]) -> Lookup:
        if hots not in self._lookups:
            tables = self._tables.tables
            places = [1 + table for table in tables] if self._is_main else range(len(tables))
            self._lookups[hots] = Lookup(self._tables, hots, [self._dim * place for place in places])
        return self._lookups[hots]


class _Slot:
    """Page-locked memory of one batch on its way."""

    def __init__(self) -> None:
        self._dense = self._indices = torch.empty((0, 0))
        self.hots: tuple[int, ...] = ()
        """Indices of a pair that there is room for, by table."""
        self.done: Any = None

    def wait(self) -> None:
        """Until the last batch has been read from here."""
        if self.done is not None:
            self.done.synchronize()

    def has_room(self, batch: Batch) -> bool:
        return len(batch) <= len(self._dense) and batch.hots == self.hots

    def take(self, pairs: int, hots: tuple[int, ...]) -> None:
        """Room for so many pairs of so many indices."""
        self.hots = hots
        self._dense = _page_locked((pairs, DENSE_FEATURES), torch.float32)
        self._indices = _page_locked((pairs, sum(hots)), torch.int32)

    def collect(self, batch: Batch, threads: ThreadPoolExecutor) -> tuple[Tensor, Tensor]:
        """dense [n, 13] and indices [n, sum of hots] of the batch's pairs."""
        dense, indices = self._dense[: len(batch)], self._indices[: len(batch)]
        ends = np.cumsum(batch.counts, dtype=np.int64)
        cuts = sorted({*np.linspace(0, len(ends), _COLLECTORS + 1).astype(int).tolist()})

        def copy(low: int, high: int) -> None:
            part = Batch(batch.source, batch.starts[low:high], batch.counts[low:high])
            rows = slice(int(ends[low]) - int(batch.counts[low]), int(ends[high - 1]))
            part.collect(dense[rows].numpy(), indices[rows].numpy())

        list(threads.map(copy, cuts, cuts[1:]))
        return dense, indices


def _page_locked(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory that a GPU copies by itself; PyTorch keeps what is freed, as it is slow to get."""
    return torch.empty(shape, dtype=dtype, pin_memory=torch.cuda.is_available())
