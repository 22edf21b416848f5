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
        self.never_ends, self.longest = never_ends, room.longest
        self.gpu: Any = None
        """`gpu.Gpu` computes steps in the place of plain PyTorch, once `fuse` was called."""

    def fuse(self) -> Any:
        """From now on compute by Triton's kernels, which need a GPU or its interpreter."""
        from bench_llama2_70b.pytorch import fused, gpu, kernels  # Triton is there on Linux only

        config = self.model.config
        tile = kernels.tile_size(config.num_attention_heads // config.num_key_value_heads)
        network = fused.Fused(self.model, self.cache, self.longest)
        self.gpu = gpu.Gpu(network, self._likeliest, tile)
        return self.gpu

    def step(self) -> Tokens:
        """Advance every request. Nothing runs: nothing comes out."""
        plan = self.planner.plan()
        if plan is None:
            return _NOTHING
        return self.planner.accept(plan, self.compute(plan))

    @torch.inference_mode()
    def compute(self, plan: Step) -> I64:
        """The token after each row that ends, the same on every rank."""
        ids = self.gpu.ids(plan) if self.gpu else self._plain(plan)
        return self.share.agreed(ids).cpu().numpy()

    def _plain(self, plan: Step) -> Tensor:
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
        return made.to(self.device)


def padding(counts: I64) -> tuple[I64, Any]:
    """Rows of so many tokens each, one after another, as [n, longest]: (the token's number, is it one?)."""
    columns = np.arange(counts.max())
    real = columns < counts[:, None]
    starts = np.cumsum(counts) - counts
    return starts[:, None] + np.minimum(columns, counts[:, None] - 1), real
