"""One step of all beam searches: chunks of prompts that are new, then a token of every beam.

The host only says what begins. How far each search is, and whether it has ended, lies on the device (`beams`); a GPU's
host reads that one step late, so that neither waits for the other.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench_gpt_j.pytorch.beams import Beams, Length
from bench_gpt_j.pytorch.cache import Cache, Chunk
from bench_gpt_j.pytorch.model import GPTJ
from loadgen.contracts import I64, RequestError, Tokens
from loadgen.harness.serving.streaming import tokens_of

BUDGET = 4096
"""Tokens of prompts that a step computes at the most, unless `--max-cost` says otherwise."""


@dataclass(frozen=True)
class Search:
    """How answers are searched for."""

    end: int
    """The token that ends an answer."""
    beams: int = 4
    least: int = 30
    """Tokens before an answer may end."""
    most: int = 128
    length: Length = "generated"
    never_ends: bool = False
    """Answers have the most tokens that their requests allow, since random weights do not stop."""


@dataclass
class _Prompt:
    """A request whose prompt is not computed yet, or not to its end."""

    request: int
    tokens: I64
    most: int
    done: int = 0


class Engine:
    """A model, its cache, and the searches that run; one thread calls all methods."""

    def __init__(self, model: GPTJ, search: Search, slots: int, longest: int, budget: int = BUDGET) -> None:
        """slots: searches at once. longest: tokens of a prompt. budget: of prompts in a step."""
        self.model, self.search, self.budget, self.longest = model, search, budget, longest
        self.device = model.embed.device
        self.cache = Cache(model.config, slots, search.beams, longest + search.beams * search.most, model.embed)
        self.beams = Beams(slots, search.beams, search.most, search.end, search.length, self.device)
        self.gpu: Any = None
        """`gpu.Gpu` computes in the place of plain PyTorch, once `fuse` was called."""
        self._free = list(range(slots))[::-1]
        self._waiting: deque[_Prompt] = deque()
        self._filling: dict[int, _Prompt] = {}  # by slot, the oldest first
        self._running: dict[int, int] = {}  # slot -> request
        self._reports: deque[tuple[dict[int, int], Any]] = deque()

    def fuse(self) -> Any:
        """From now on compute by Triton's kernels, which need a GPU or its interpreter."""
        from bench_gpt_j.pytorch.gpu import Gpu  # Triton is there on Linux only

        self.gpu = Gpu(self)
        return self.gpu

    def room(self) -> int:
        """Requests that would be taken now."""
        return len(self._free) - len(self._waiting)

    def add(self, request: int, prompt: I64, most: int) -> None:
        """most: tokens of its answer. Raises RequestError for a prompt that is empty or too long."""
        if not 0 < len(prompt) <= self.longest:
            raise RequestError(request, f"a prompt of {len(prompt)} tokens, expected 1 to {self.longest}")
        self._waiting.append(_Prompt(request, prompt, most))

    @torch.inference_mode()
    def step(self) -> Tokens:
        """Advance every search. A whole answer comes at once: until then any beam may be the best."""
        self._admit()
        if self._filling:
            self._fill()
        if self._running:
            self._extend()
            self._reports.append((dict(self._running), self._report()))
        late = 1 if self.gpu and self._running else 0
        rows: list[tuple[int, list[int], bool]] = []
        while len(self._reports) > late:
            rows += self._ended(*self._reports.popleft())
        return tokens_of(rows)

    def _admit(self) -> None:
        """The lowest slots are taken first, so that those that run lie close together."""
        while self._waiting and self._free:
            self._filling[self._free.pop()] = self._waiting.popleft()

    def _fill(self) -> None:
        """Chunks of prompts, the oldest first, as many tokens as the budget allows; searches begin whose last it is."""
        chunks: list[Chunk] = []
        left = self.budget
        for slot, prompt in self._filling.items():
            if left:
                chunks.append(Chunk(slot, prompt.done, min(left, len(prompt.tokens) - prompt.done)))
                left -= chunks[-1].tokens
        spans = [self._filling[slot].tokens[start : start + count] for slot, start, count in chunks]
        tokens = self._there(np.concatenate(spans))
        places = self._there(np.concatenate([np.arange(start, start + count) for _, start, count in chunks]))
        slots = self._there(np.repeat([chunk.slot for chunk in chunks], [chunk.tokens for chunk in chunks]))
        if self.gpu:
            hidden = self.gpu.network.fill(tokens, places, slots, places, chunks)
        else:
            hidden = self.model(tokens, places, self.cache.fill(slots, places, chunks))
        last, number = [], -1
        for slot, _, count in chunks:
            number += count
            prompt = self._filling[slot]
            prompt.done += count
            if prompt.done == len(prompt.tokens):
                last.append((number, slot, len(prompt.tokens), prompt.most))
                self._running[slot] = self._filling.pop(slot).request
        if last:
            at, begun, lengths, most = self._there(np.array(last).T)
            self.cache.begin(begun, lengths)
            self.beams.begin(begun, lengths, most)
            logits = self.model.logits(hidden[at])[:, None].expand(-1, self.search.beams, -1)
            self.choose(begun, logits)

    def _extend(self) -> None:
        rows = max(self._running) + 1  # free ones among them are computed for nothing
        if self.gpu:
            self.gpu.extend(rows)
            return
        slots = torch.arange(rows)
        positions = (self.beams.prompt[:rows] + self.beams.made[:rows] - 1).clamp(min=0)
        places = self.places(slots)
        running = torch.tensor(sorted(self._running))
        attend = self.cache.extend(rows, places, int(places[running].max()) + 1)
        hidden = self.model(self.beams.last(slots), positions[:, None].expand_as(places), attend)
        self.choose(running, self.model.logits(hidden[running]))

    def places(self, slots: Tensor) -> Tensor:
        """[n, beams] where the last token of each beam is kept; for slots that do not run, the end of their row, which
        is nobody's: an answer's last token is never computed with."""
        before = self.beams.prompt[slots] + self.search.beams * (self.beams.made[slots] - 1)
        before = torch.where(self.beams.running[slots], before, self.cache.seen.shape[2] - self.search.beams)
        return before[:, None] + torch.arange(self.search.beams, device=self.device)

    def choose(self, slots: Tensor, logits: Tensor) -> None:
        """Take the best continuations, of logits [n, beams, vocabulary]."""
        beams, end = self.search.beams, self.search.end
        odds = logits.float().log_softmax(-1)
        if self.search.never_ends:
            odds[:, :, end] = -torch.inf
        else:
            early = self.beams.made[slots] < self.search.least
            odds[:, :, end].masked_fill_(early[:, None], -torch.inf)
        each = odds.topk(min(2 * beams, odds.shape[2]))  # of each beam: no others are among the best of all
        best = (each.values + self.beams.scores[slots][:, :, None]).flatten(1).topk(2 * beams)
        parents = best.indices // each.values.shape[2]
        tokens = each.indices.flatten(1).gather(1, best.indices)
        parents = self.beams.advance(slots, best.values, parents, tokens)
        self.cache.part(slots, parents, self.places(slots))

    def _report(self) -> Any:
        """What the host will read: (does it run?, tokens of its answer, the answer) of each slot."""
        state = self.beams
        joined = torch.cat([state.running[:, None], state.lengths[:, None], state.answers], dim=1)
        return self.gpu.later(joined) if self.gpu else joined.numpy

    def _ended(self, reported: dict[int, int], report: Any) -> list[tuple[int, list[int], bool]]:
        """A report may be older than a slot's request."""
        rows, ended = report(), []
        for slot, request in reported.items():
            if not rows[slot, 0] and self._running.get(slot) == request:
                del self._running[slot]
                ended.append((request, rows[slot, 2 : 2 + rows[slot, 1]].tolist(), True))
                self._free = sorted([*self._free, slot], reverse=True)
        return ended

    def _there(self, column: Any) -> Tensor:
        made = torch.from_numpy(np.ascontiguousarray(column))
        return made if self.device.type == "cpu" else made.pin_memory().to(self.device, non_blocking=True)
