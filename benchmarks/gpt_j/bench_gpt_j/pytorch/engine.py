"""One step of all beam searches: prompts that are new, then a token of every beam."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench_gpt_j.beams import Beams, Length
from bench_gpt_j.pytorch.cache import Cache
from bench_gpt_j.pytorch.model import GPTJ
from loadgen.contracts import I64, RequestError, Tokens
from loadgen.harness.serving.streaming import tokens_of


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


class Engine:
    """A model, its cache, and the searches that run; one thread calls all methods."""

    def __init__(self, model: GPTJ, search: Search, slots: int, longest: int, budget: int = 4096) -> None:
        """slots: searches at once. longest: tokens of a prompt. budget: of prompts of a step, padding included."""
        self.model, self.search, self.budget, self.longest = model, search, budget, longest
        self.device = model.embed.device
        self.cache = Cache(model.config, slots, search.beams, longest + search.beams * search.most, model.embed)
        self.beams = Beams(slots, search.beams, search.most, search.end, search.length)
        self._free = list(range(slots))[::-1]
        self._waiting: deque[tuple[int, I64, int]] = deque()
        self._request: I64 = np.full(slots, -1)  # of each slot that runs
        self._prompt: I64 = np.ones(slots, np.int64)
        self._new: dict[int, I64] = {}  # prompts that are not computed yet

    def room(self) -> int:
        """Requests that would be taken now."""
        return len(self._free) - len(self._waiting)

    def add(self, request: int, prompt: I64, most: int) -> None:
        """most: tokens of its answer. Raises RequestError for a prompt that is empty or too long."""
        if not 0 < len(prompt) <= self.longest:
            raise RequestError(request, f"a prompt of {len(prompt)} tokens, expected 1 to {self.longest}")
        self._waiting.append((request, prompt, most))

    @torch.inference_mode()
    def step(self) -> Tokens:
        """Advance every search. A whole answer comes at once: until then any beam may be the best."""
        started = self._admit()
        done = self._choose(started, self._fill(started)) if len(started) else []
        running = np.setdiff1d(np.flatnonzero(self._request >= 0), done)
        if len(running):
            done += self._choose(running, self._extend(running))
        return tokens_of([self._leave(slot) for slot in done])

    def _admit(self) -> I64:
        """Slots of requests that start, as many as the budget allows, one at least. The lowest slots are taken first,
        so that those that run lie close together."""
        started: list[int] = []
        longest = 0
        while self._waiting and self._free:
            request, prompt, most = self._waiting[0]
            longest = max(longest, len(prompt))
            if started and longest * (len(started) + 1) > self.budget:
                break
            self._waiting.popleft()
            slot = self._free.pop()
            self._request[slot], self._prompt[slot], self._new[slot] = request, len(prompt), prompt
            self.beams.begin(slot, len(prompt), most)
            self.cache.begin(slot, len(prompt))
            started.append(slot)
        return np.array(started, np.int64)

    def _fill(self, slots: I64) -> Tensor:
        """[n, beams, vocabulary] logits after the prompts, the same for each beam."""
        prompts = [self._new.pop(slot) for slot in slots.tolist()]
        lengths = self._prompt[slots]
        tokens = np.zeros((len(slots), int(lengths.max())), np.int64)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = prompt
        there, at = self._there(tokens), self._there(slots)
        positions = torch.arange(there.shape[1], device=self.device).expand_as(there)
        hidden = self.model(there, positions, self.cache.fill(at))
        last = hidden[torch.arange(len(slots), device=self.device), self._there(lengths - 1)]
        return self.model.logits(last)[:, None].expand(-1, self.search.beams, -1)

    def _extend(self, slots: I64) -> Tensor:
        """[n, beams, vocabulary] logits after each beam's last token."""
        rows = int(slots.max()) + 1  # free ones among them are computed for nothing
        made = self.beams.made[:rows]
        length = int((self._prompt[:rows] + self.search.beams * made)[slots].max())
        places = self._there(self._places(np.arange(rows)))
        positions = self._there(np.repeat((self._prompt[:rows] + made - 1)[:, None], self.search.beams, axis=1))
        tokens = self._there(self.beams.last(np.arange(rows)))
        hidden = self.model(tokens, positions, self.cache.extend(rows, places, length))
        return self.model.logits(hidden[self._there(slots)])

    def _places(self, slots: I64) -> I64:
        """[n, beams] where the last token of each beam is kept."""
        before = self._prompt[slots] + self.search.beams * np.maximum(self.beams.made[slots] - 1, 0)
        places: I64 = before[:, None] + np.arange(self.search.beams)
        return places

    def _choose(self, slots: I64, logits: Tensor) -> list[int]:
        """Take the best continuations. Returns the slots whose search has ended."""
        beams, vocabulary = logits.shape[1:]
        odds = logits.float().log_softmax(-1)
        early = self.beams.made[slots] < self.search.least
        if self.search.never_ends:
            odds[:, :, self.search.end] = -torch.inf
        elif early.any():
            odds[:, :, self.search.end].masked_fill_(self._there(early)[:, None], -torch.inf)
        sums = odds + self._there(self.beams.scores[slots])[:, :, None]
        best, flat = sums.flatten(1).topk(2 * beams)
        scores, chosen = best.cpu().numpy(), flat.cpu().numpy()
        moves = self.beams.advance(slots, scores, chosen // vocabulary, chosen % vocabulary)
        self.cache.part(self._there(slots), self._there(moves.parents), self._there(self._places(slots)))
        return [int(slot) for slot in slots[moves.ended]]

    def _leave(self, slot: int) -> tuple[int, list[int], bool]:
        request, answer = int(self._request[slot]), self.beams.answer(slot)
        self._request[slot] = -1
        self._free = sorted([*self._free, slot], reverse=True)
        return request, answer.tolist(), True

    def _there(self, column: Any) -> Tensor:
        made = torch.from_numpy(np.ascontiguousarray(column))
        return made if self.device.type == "cpu" else made.pin_memory().to(self.device, non_blocking=True)
