"""One step of all requests: what the planner chose is computed, and the likeliest token of each row comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench_llama2_70b.official import EOS
from bench_llama2_70b.pytorch.cache import Cache, rows_of
from bench_llama2_70b.pytorch.model import Llama
from bench_llama2_70b.pytorch.parallel import Share
from loadgen.contracts import I64, Tokens
from loadgen.harness.serving.paging import Planner, Room, Step

_NOTHING = Tokens(np.empty(0, np.int64), np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.bool_))


class Engine:
    """A model, its cache, and the requests that run. Several ranks step together, with the same requests."""

    def __init__(self, model: Llama, share: Share, room: Room, cache: torch.dtype, never_ends: bool = False) -> None:
        """cache: the format that keys and values are kept in. never_ends: answers are as long as allowed, since
        random weights do not stop."""
        self.model, self.share = model, share
        self.device = model.embed.device
        self.cache = Cache(model.config, share.count, room.pages, room.page, model.embed, cache)
        self.planner = Planner(room, -1 if never_ends else EOS)
        self.never_ends = never_ends
        self.recorded: dict[tuple[int, int], Recorded] = {}

    def step(self) -> Tokens:
        """Advance every request. Nothing runs: nothing comes out."""
        plan = self.planner.plan()
        if plan is None:
            return _NOTHING
        return self.planner.accept(plan, self.compute(plan))

    @torch.inference_mode()
    def compute(self, plan: Step) -> I64:
        """The token after each row that ends, the same on every rank."""
        ids = self._replayed(plan) if plan.single == len(plan.slots) and self.recorded else None
        if ids is None:
            ids = self._eager(plan)
        return self.share.agreed(ids).cpu().numpy()

    def _eager(self, plan: Step) -> Tensor:
        tokens, positions, pages = (self._there(x) for x in (plan.tokens, plan.positions, plan.pages.astype(np.int64)))
        single, many, places = None, None, []
        if plan.single:
            at = positions[: plan.single, None]
            single = rows_of(pages[: plan.single], at, self.cache.page)
            places.append(self.cache.places(pages[: plan.single], at).flatten())
        if plan.single < len(plan.slots):
            padded, real = (self._there(x) for x in padding(plan.counts[plan.single :]))
            at = positions[plan.single :][padded]
            many = rows_of(pages[plan.single :], at, self.cache.page, padded=padded, real=real)
            places.append(self.cache.places(pages[plan.single :], at)[real])
        hidden = self.model(tokens, positions, self.cache.attend(single, many, torch.cat(places)))
        last = np.cumsum(plan.counts)[plan.ends] - 1
        return self._likeliest(hidden[self._there(last)], self._there(plan.fresh[plan.ends]))

    def _likeliest(self, hidden: Tensor, fresh: Tensor) -> Tensor:
        """[n] ids. An answer has at least one token that is not its end."""
        logits = self.model.logits(hidden)
        if self.never_ends:
            logits[:, EOS] = -torch.inf
        else:
            logits[:, EOS].masked_fill_(fresh, -torch.inf)
        return logits.argmax(-1)

    def _there(self, column: Any) -> Tensor:
        made = torch.from_numpy(np.ascontiguousarray(column))
        return (
            made.to(self.device) if self.device.type == "cpu" else made.pin_memory().to(self.device, non_blocking=True)
        )

    def record(self, sizes: list[int], pages: list[int]) -> None:
        """CUDA: record the kernels of steps in which all requests generate, for these numbers of rows and pages.

        Launching them one by one takes longer than computing them.
        """
        pool: Any = torch.cuda.graph_pool_handle()  # one runs at a time, so all may use the same memory
        for size in sorted(sizes, reverse=True):
            for count in sorted(pages, reverse=True):
                self.recorded[size, count] = Recorded(self, size, count, pool)

    def _replayed(self, plan: Step) -> Tensor | None:
        """By the smallest recording that fits; None: none does."""
        rows, pages = plan.pages.shape
        fits = [key for key in self.recorded if key[0] >= rows and key[1] >= pages]
        return self.recorded[min(fits)].replay(self, plan) if fits else None


def padding(counts: I64) -> tuple[I64, Any]:
    """Rows of so many tokens each, one after another, as [n, longest]: (the token's number, is it one?)."""
    columns = np.arange(counts.max())
    real = columns < counts[:, None]
    starts = np.cumsum(counts) - counts
    return starts[:, None] + np.minimum(columns, counts[:, None] - 1), real


class Recorded:
    """The kernels of one step of `size` rows of one token, launched as one."""

    def __init__(self, engine: Engine, size: int, pages: int, pool: Any) -> None:
        self.tokens, self.positions = (torch.zeros(size, dtype=torch.int64, device=engine.device) for _ in range(2))
        self.fresh = torch.zeros(size, dtype=torch.bool, device=engine.device)
        self.pages = torch.zeros(
            (size, pages), dtype=torch.int64, device=engine.device
        )  # of the page that nobody reads
        stream: Any = torch.cuda.Stream(engine.device)  # type: ignore[no-untyped-call]
        with torch.inference_mode(), torch.cuda.stream(stream):
            self._compute(engine)  # outside of the recording: takes its memory
        torch.cuda.synchronize(engine.device)
        self._graph: Any = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(self._graph, pool=pool):
            self._ids = self._compute(engine)

    def _compute(self, engine: Engine) -> Tensor:
        at = self.positions[:, None]
        rows = rows_of(self.pages, at, engine.cache.page)
        places = engine.cache.places(self.pages, at).flatten()
        hidden = engine.model(self.tokens, self.positions, engine.cache.attend(rows, None, places))
        return engine._likeliest(hidden, self.fresh)

    def replay(self, engine: Engine, plan: Step) -> Tensor:
        """The ids of the plan's rows. Rows beyond them write to the page that nobody reads."""
        rows, pages = plan.pages.shape
        for kept, new in ((self.tokens, plan.tokens), (self.positions, plan.positions), (self.fresh, plan.fresh)):
            kept[:rows].copy_(engine._there(new))
            kept[rows:].zero_()
        self.pages.zero_()
        self.pages[:rows, :pages].copy_(engine._there(plan.pages))
        self._graph.replay()
        return self._ids[:rows]
