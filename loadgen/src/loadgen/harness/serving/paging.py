"""Continuous batching over a cache in pages: which tokens of which requests a step computes, and where they are kept.

No model and no framework: an engine asks for a `Step`, computes it, and says which tokens came out. Each request that
runs has a slot. Prompts are computed in chunks beside the tokens of requests that generate already, so that a long
prompt does not hold these up. A request takes pages of the cache as it grows. When none is left, the youngest request
goes back to the queue with what it has generated, and is computed again later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64, RequestError, Tokens


@dataclass(frozen=True)
class Room:
    """How much an engine holds."""

    slots: int
    """Requests at once."""
    longest: int
    """Tokens of a request, prompt and answer."""
    pages: int
    """Of the cache. The first is never given out: an engine may write there what nobody reads."""
    page: int = 16
    """Tokens of a page."""
    budget: int = 512
    """Tokens of a step, unless more requests than that generate."""

    def __post_init__(self) -> None:
        if self.pages - 1 < self.pages_of(self.longest):
            raise ValueError(f"{self.pages} pages of {self.page} tokens do not hold one request of {self.longest}")

    def pages_of(self, tokens: int) -> int:
        return -(-tokens // self.page)


@dataclass(frozen=True)
class Step:
    """What a step computes: rows of tokens, each of one request. Rows of one token come first."""

    slots: I64
    """[rows]"""
    counts: I64
    """[rows] tokens of each row."""
    tokens: I64
    """[T] of all rows, one row after another."""
    positions: I64
    """[T] of each token in its request."""
    pages: npt.NDArray[np.int32]
    """[rows, P] where each request's tokens are kept, as far as the longest of these needs."""
    ends: npt.NDArray[np.bool_]
    """[rows] is the token after this row wanted? Not while more of the prompt is to come."""
    fresh: npt.NDArray[np.bool_]
    """[rows] will it be the first of the answer?"""
    single: int
    """How many rows have one token."""


@dataclass(frozen=True)
class _Waiting:
    request: int
    tokens: I64
    prompt: int
    most: int


class Planner:
    """One thread calls all methods."""

    def __init__(self, room: Room, eos: int) -> None:
        """eos: the token that ends an answer, as its last."""
        self._room, self._eos = room, eos
        self._waiting: deque[_Waiting] = deque()
        self._order: list[int] = []  # slots that run, the oldest first
        self._slots = list(range(room.slots))[::-1]
        self._free = list(range(room.pages))[:0:-1]
        self._ids = np.zeros((room.slots, room.longest), np.int64)
        self._table = np.zeros((room.slots, room.pages_of(room.longest)), np.int32)
        self._request, self._known, self._cached, self._prompt, self._most, self._held = np.zeros(
            (6, room.slots), np.int64
        )

    def room(self) -> int:
        """Requests that would be taken now; they may still wait for pages."""
        return self._room.slots - len(self._order) - len(self._waiting)

    def add(self, request: int, prompt: I64, most: int) -> None:
        """most: tokens of its answer. Raises RequestError for an empty prompt, or one that leaves no room for those."""
        if not len(prompt):
            raise RequestError(request, "the prompt is empty")
        if len(prompt) + most > self._room.longest:
            raise RequestError(
                request, f"a prompt of {len(prompt)} tokens and an answer of {most} are over {self._room.longest}"
            )
        self._waiting.append(_Waiting(request, np.asarray(prompt, np.int64), len(prompt), most))

    def plan(self) -> Step | None:
        """The next step; None: nothing runs."""
        self._admit()
        while self._order:
            order = np.array(self._order)
            missing = self._known[order] - self._cached[order]
            single, filling = order[missing == 1], order[missing > 1]
            before = np.cumsum(missing[missing > 1]) - missing[missing > 1]
            left = np.clip(self._room.budget - len(single) - before, 0, missing[missing > 1])
            slots = np.concatenate([single, filling[left > 0]])
            counts = np.concatenate([np.ones(len(single), np.int64), left[left > 0]])
            if self._take_pages(slots, self._cached[slots] + counts):
                return self._step(slots, counts, len(single))
        return None

    def accept(self, step: Step, ids: I64) -> Tokens:
        """ids: the token after each row that `ends`. What is finished leaves its slot and its pages."""
        self._cached[step.slots] += step.counts
        ended = step.slots[step.ends]
        self._ids[ended, np.minimum(self._known[ended], self._room.longest - 1)] = ids
        self._known[ended] += 1
        finished = (ids == self._eos) | (self._known[ended] - self._prompt[ended] == self._most[ended])
        tokens = Tokens(self._request[ended], ids, np.arange(len(ids) + 1), finished)
        for slot in ended[finished].tolist():
            self._leave(slot)
        return tokens

    def _admit(self) -> None:
        """In the order in which they came, while there are pages for one and a page for each that runs."""
        while self._waiting and self._slots:
            first = self._waiting[0]
            needed = self._room.pages_of(len(first.tokens) + 1)
            if self._order and len(self._free) < needed + len(self._order):
                return
            self._waiting.popleft()
            slot = self._slots.pop()
            self._ids[slot, : len(first.tokens)] = first.tokens
            self._request[slot], self._known[slot] = first.request, len(first.tokens)
            self._prompt[slot], self._most[slot] = first.prompt, first.most
            self._cached[slot] = self._held[slot] = 0
            self._order.append(slot)

    def _take_pages(self, slots: I64, tokens: I64) -> bool:
        """Pages for so many tokens of each. False: there were too few, and the youngest request has left."""
        needed = -(-tokens // self._room.page)
        short = needed > self._held[slots]
        for slot, count in zip(slots[short].tolist(), needed[short].tolist(), strict=True):
            held = int(self._held[slot])
            if count - held > len(self._free):
                youngest = self._order[-1]
                known = self._ids[youngest, : self._known[youngest]].copy()
                back = _Waiting(
                    int(self._request[youngest]), known, int(self._prompt[youngest]), int(self._most[youngest])
                )
                self._waiting.appendleft(back)
                self._leave(youngest)
                return False
            self._table[slot, held:count] = [self._free.pop() for _ in range(count - held)]
            self._held[slot] = count
        return True

    def _leave(self, slot: int) -> None:
        self._free.extend(self._table[slot, : self._held[slot]].tolist())
        self._held[slot] = 0
        self._order.remove(slot)
        self._slots.append(slot)

    def _step(self, slots: I64, counts: I64, single: int) -> Step:
        starts = self._cached[slots]
        ends = starts + counts
        chunks = zip(slots[single:].tolist(), starts[single:].tolist(), ends[single:].tolist(), strict=True)
        spans = [(slot, np.arange(start, end)) for slot, start, end in chunks]
        return Step(
            slots=slots,
            counts=counts,
            tokens=np.concatenate(
                [self._ids[slots[:single], starts[:single]], *(self._ids[slot, span] for slot, span in spans)]
            ),
            positions=np.concatenate([starts[:single], *(span for _, span in spans)]),
            pages=self._table[slots, : self._room.pages_of(int(ends.max()))],
            ends=ends == self._known[slots],
            fresh=self._known[slots] == self._prompt[slots],
            single=single,
        )
