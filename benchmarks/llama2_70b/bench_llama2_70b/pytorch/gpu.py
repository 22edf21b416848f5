"""Steps on a GPU: columns go there in one copy, the network is the fused one, and steps in which all requests generate
are recorded and launched as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench_llama2_70b.pytorch.fused import Batch, Fused
from bench_llama2_70b.pytorch.kernels import Tiles
from loadgen.harness.serving.paging import Step

Likeliest = Callable[[Tensor, Tensor], Tensor]
"""(hidden states [n, d], is it the first token of its answer? [n]) -> ids [n]."""


class Gpu:
    """Computes steps by a fused network."""

    def __init__(self, network: Fused, likeliest: Likeliest, tile: int) -> None:
        """tile: tokens of a prompt that attend together."""
        self.network, self.likeliest, self.tile = network, likeliest, tile
        self.device = network.model.embed.device
        self.recorded: dict[int, Recorded] = {}

    def record(self, sizes: list[int], pages: int) -> None:
        """CUDA: record the kernels of steps in which so many requests generate. pages: of the longest request.

        Launching them one by one takes longer than computing them.
        """
        pool: Any = torch.cuda.graph_pool_handle()  # one runs at a time, so all may use the same memory
        for size in sorted(sizes, reverse=True):
            self.recorded[size] = Recorded(self, size, pages, pool)

    def compile(self) -> None:
        """What a step with a chunk of a prompt needs, on the page that nobody reads."""
        count = self.tile + 1
        none, rows = np.zeros(count + 1, np.int64), np.arange(2)
        counts, pages = np.array([1, count]), np.zeros((2, -(-count // self.network.cache.page)), np.int32)
        self.ids(Step(rows, counts, none, none, pages, rows == 1, rows == 0, 1))

    def ids(self, plan: Step) -> Tensor:
        """The token after each row that ends."""
        fits = [size for size in self.recorded if size >= len(plan.slots)]
        if plan.single == len(plan.slots) and fits:
            return self.recorded[min(fits)].replay(plan)
        tiles = cut(plan, self.tile)
        last = (np.cumsum(plan.counts) - 1)[plan.ends]
        columns = (plan.tokens, plan.positions, places(plan, self.network.cache.page), *tiles, last)
        there = self._there([*columns, plan.fresh[plan.ends], plan.pages.reshape(-1)])
        tokens, positions, kept, *of_tiles, ending, fresh, table = there
        pages = table.view(plan.pages.shape)
        single = ones(positions[: plan.single])
        batch = Batch(tokens, positions, kept, pages, plan.single, single, Tiles(*of_tiles))
        return self.likeliest(self.network.hidden(batch)[ending], fresh.bool())

    def _there(self, columns: list[npt.NDArray[Any]]) -> list[Tensor]:
        """int32 on the device, in one copy. Each begins at 16 bytes: for another place Triton compiles anew."""
        lengths = [len(column) for column in columns]
        starts = np.cumsum([0, *(-(-length // 4) * 4 for length in lengths)])
        joined = np.zeros(starts[-1], np.int32)
        for start, column in zip(starts.tolist(), columns, strict=False):
            joined[start : start + len(column)] = column
        there = torch.from_numpy(joined)
        if self.device.type == "cuda":
            there = there.pin_memory().to(self.device, non_blocking=True)
        return [there[start : start + n] for start, n in zip(starts.tolist(), lengths, strict=False)]


def ones(positions: Tensor) -> Tiles:
    """Of the first tokens of a step, each a tile."""
    rows = torch.arange(len(positions), dtype=torch.int32, device=positions.device)
    return Tiles(rows, rows, torch.ones_like(rows), positions)


def places(plan: Step, page: int) -> npt.NDArray[np.int64]:
    """[T] where each token of a step is kept: page and place in it as one number."""
    rows = np.repeat(np.arange(len(plan.counts)), plan.counts)
    found: npt.NDArray[np.int64] = plan.pages[rows, plan.positions // page] * np.int64(page) + plan.positions % page
    return found


def cut(plan: Step, tile: int) -> tuple[npt.NDArray[Any], ...]:
    """The rows of several tokens in tiles of `tile` at the most: (row, first token, tokens, first position) of each."""
    rows = np.arange(plan.single, len(plan.counts))
    counts, firsts = plan.counts[rows], (np.cumsum(plan.counts) - plan.counts)[rows]
    tiles = -(-counts // tile)
    of_row = np.repeat(np.arange(len(rows)), tiles)
    begin = tile * (np.arange(len(of_row)) - np.repeat(np.cumsum(tiles) - tiles, tiles))
    first = firsts[of_row] + begin
    return rows[of_row], first, np.minimum(tile, counts[of_row] - begin), plan.positions[first]


class Recorded:
    """The kernels of one step of `size` requests that generate, launched as one."""

    def __init__(self, gpu: Gpu, size: int, pages: int, pool: Any) -> None:
        self._gpu = gpu
        self._row = -(-size // 4) * 4  # see `Gpu._there`
        self._columns = torch.zeros(4 * self._row + size * pages, dtype=torch.int32, device=gpu.device)
        *columns, table = torch.split(self._columns, [*[self._row] * 4, size * pages])
        tokens, at, kept, fresh = (column[:size] for column in columns)
        self._pages, none = (size, pages), at[:0]
        self._batch = Batch(tokens, at, kept, table.view(size, pages), size, ones(at), Tiles(none, none, none, none))
        self._fresh = fresh
        stream: Any = torch.cuda.Stream(gpu.device)  # type: ignore[no-untyped-call]
        with torch.inference_mode(), torch.cuda.stream(stream):
            self._compute()  # outside of the recording: takes its memory, and compiles
        torch.cuda.synchronize(gpu.device)
        self._graph: Any = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(self._graph, pool=pool):
            self._ids = self._compute()

    def _compute(self) -> Tensor:
        return self._gpu.likeliest(self._gpu.network.hidden(self._batch), self._fresh.bool())

    def replay(self, plan: Step) -> Tensor:
        """The ids of the plan's rows. Rows beyond them write to the page that nobody reads."""
        rows = len(plan.slots)
        columns = np.zeros((4, self._row), np.int32)
        columns[:, :rows] = plan.tokens, plan.positions, places(plan, self._gpu.network.cache.page), plan.fresh
        table = np.zeros(self._pages, np.int32)
        table[:rows, : plan.pages.shape[1]] = plan.pages
        (there,) = self._gpu._there([np.concatenate([columns.reshape(-1), table.reshape(-1)])])
        self._columns.copy_(there)
        self._graph.replay()
        return self._ids[:rows]
