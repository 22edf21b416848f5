"""Beam search of many samples at once, by the rules of Hugging Face's `generate` with `early_stopping=True`.

No model and no framework: it is given the best continuations of each search, and says how its beams go on. A step has
twice as many continuations as beams, so that enough are left if some end. One that ends counts if it is among the first
`beams`; its score is the sum of its tokens' log-probabilities by its length. A search ends when as many have ended as
there are beams, or after the most tokens that its answer may have, when the first `beams` continuations count as if
they had ended.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64

F32 = npt.NDArray[np.float32]
Length = Literal["generated", "full"]
"""What a score is divided by: the answer's tokens; or those of prompt and answer, without the answer's end, as
transformers did before 4.37, with which the official targets were made."""
LENGTHS: tuple[Length, ...] = ("generated", "full")
_NEVER = np.float32(-1e9)


class Moves(NamedTuple):
    """How searches go on. Those that have ended have moves too, of no meaning."""

    parents: I64
    """[n, beams] the beam that each beam goes on from."""
    tokens: I64
    """[n, beams] each beam's new token."""
    ended: npt.NDArray[np.bool_]
    """[n]"""


class Beams:
    """The searches in `slots` places."""

    def __init__(self, slots: int, beams: int, most: int, end: int, length: Length = "generated") -> None:
        """most: tokens of the longest answer. end: the token that ends one."""
        self.count, self._end, self._length = beams, end, length
        self.scores: F32 = np.zeros((slots, beams), np.float32)
        """Sums of log-probabilities."""
        self.made: I64 = np.zeros(slots, np.int64)
        """Tokens of each beam."""
        self._tokens: I64 = np.zeros((slots, beams, most), np.int64)
        self._prompt: I64 = np.ones(slots, np.int64)
        self._most: I64 = np.full(slots, most)
        self._finished: I64 = np.zeros(slots, np.int64)
        self._best: F32 = np.zeros(slots, np.float32)
        self._answers: list[I64] = [np.empty(0, np.int64)] * slots

    def begin(self, slot: int, prompt: int, most: int) -> None:
        """All beams start alike, so the first alone counts. prompt: its tokens. most: of the answer."""
        self.scores[slot] = _NEVER
        self.scores[slot, 0] = 0.0
        self.made[slot] = self._finished[slot] = 0
        self._prompt[slot], self._most[slot], self._best[slot] = prompt, most, -np.inf

    def advance(self, slots: I64, scores: F32, parents: I64, tokens: I64) -> Moves:
        """scores, parents and tokens [n, 2 * beams]: the best continuations, the best first."""
        made = self.made[slots] + 1
        last = made == self._most[slots]
        ends = tokens == self._end
        counts = (ends | last[:, None]) & (np.arange(tokens.shape[1]) < self.count)
        self._finish(slots, counts, scores, parents, tokens)
        goes_on = np.argsort(ends, axis=1, kind="stable")[:, : self.count]  # those that do not end, in order
        parents, tokens = (np.take_along_axis(x, goes_on, axis=1) for x in (parents, tokens))
        scores = np.take_along_axis(scores, goes_on, axis=1)
        kept = np.take_along_axis(self._tokens[slots], parents[:, :, None], axis=1)
        kept[np.arange(len(slots)), :, made - 1] = tokens
        self._tokens[slots], self.scores[slots], self.made[slots] = kept, scores, made
        return Moves(parents, tokens, last | (self._finished[slots] >= self.count))

    def last(self, slots: I64) -> I64:
        """[n, beams] the token that each beam goes on from."""
        found: I64 = self._tokens[slots, :, np.maximum(self.made[slots] - 1, 0)]
        return found

    def answer(self, slot: int) -> I64:
        """The best of a search that has ended, with its end if it has one."""
        return self._answers[slot]

    def _finish(self, slots: I64, counts: npt.NDArray[np.bool_], scores: F32, parents: I64, tokens: I64) -> None:
        for row, rank in zip(*np.nonzero(counts), strict=True):
            slot = int(slots[row])
            self._finished[slot] += 1
            score = scores[row, rank] / np.float32(self._counted(slot, int(tokens[row, rank])))
            if score > self._best[slot]:  # of equal ones the first stays
                self._best[slot] = score
                before = self._tokens[slot, parents[row, rank], : self.made[slot]]
                self._answers[slot] = np.append(before, tokens[row, rank])

    def _counted(self, slot: int, token: int) -> int:
        made = int(self.made[slot]) + 1
        return made if self._length == "generated" else int(self._prompt[slot]) + made - (token == self._end)


def of(name: Any) -> Length:
    """The length rule of that name. Raises ValueError for another."""
    for known in LENGTHS:
        if name == known:
            return known
    raise ValueError(f"beam_length {name!r}: use one of {', '.join(LENGTHS)}")
