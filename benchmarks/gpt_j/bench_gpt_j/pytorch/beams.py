"""Beam search of many samples at once, by the rules of Hugging Face's `generate` with `early_stopping=True`.

No model: it is given the best continuations of each search, and says how its beams go on. A step has twice as many
continuations as beams, so that enough are left if some end. One that ends counts if it is among the first `beams`; its
score is the sum of its tokens' log-probabilities by its length. A search ends when as many have ended as there are
beams, or after the most tokens that its answer may have, when the first `beams` continuations count as if they had
ended.

All that is known of a search lies in tensors of fixed shapes, so that a GPU's steps can be recorded, and need no host.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Length = Literal["generated", "full"]
"""What a score is divided by: the answer's tokens; or those of prompt and answer, without the answer's end, as
transformers did before 4.37, with which the official targets were made."""
LENGTHS: tuple[Length, ...] = ("generated", "full")
_NEVER = -1e9


class Beams:
    """The searches in `slots` places; each column is [slots]."""

    def __init__(
        self, slots: int, beams: int, most: int, end: int, length: Length, device: torch.device | str = "cpu"
    ) -> None:
        """most: tokens of the longest answer. end: the token that ends one."""
        self.count, self._end, self._length = beams, end, length

        def column(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros((slots, *shape), dtype=dtype, device=device)

        self.running = column(dtype=torch.bool)
        self.prompt, self.most, self.made = column(), column(), column()
        """Tokens: of the prompt, of the answer at the most, of each beam so far."""
        self.scores = column(beams, dtype=torch.float32)
        """Sums of log-probabilities."""
        self.tokens = column(beams, most)
        self._finished, self._best = column(), column(dtype=torch.float32)
        self.answers, self.lengths = column(most), column()
        """The best of those that have ended, with its end if it has one."""

    def begin(self, slots: Tensor, prompt: Tensor, most: Tensor) -> None:
        """All beams start alike, so the first alone counts. prompt: its tokens. most: of the answer."""
        self.scores[slots] = _NEVER
        self.scores[slots, 0] = 0.0
        self.made[slots] = self._finished[slots] = 0
        self.prompt[slots], self.most[slots], self._best[slots] = prompt, most, -torch.inf
        self.running[slots] = True

    def last(self, slots: Tensor) -> Tensor:
        """[n, beams] the token that each beam goes on from."""
        at = (self.made[slots] - 1).clamp(min=0)[:, None, None].expand(-1, self.count, 1)
        return self.tokens[slots].gather(2, at).squeeze(2)

    def advance(self, slots: Tensor, scores: Tensor, parents: Tensor, tokens: Tensor) -> Tensor:
        """scores, parents and tokens [n, 2 * beams]: the best continuations, the best first.

        Returns the beam that each beam goes on from, [n, beams]. Searches that have ended stay as they are, and what is
        returned for them has no meaning.
        """
        was = self.running[slots]
        made = self.made[slots] + 1
        at = made.clamp(max=self.tokens.shape[2]) - 1  # of a search that has ended, too
        rank = torch.arange(tokens.shape[1], device=tokens.device)
        ends, last = tokens == self._end, made == self.most[slots]
        counts = (ends | last[:, None]) & (rank < self.count) & was[:, None]
        self._finish(slots, counts, scores, parents, tokens, at)
        order = (ends * len(rank) + rank).topk(self.count, largest=False).values % len(rank)  # those that do not end
        parents, tokens, scores = (x.gather(1, order) for x in (parents, tokens, scores))
        before = self.tokens[slots]
        kept = before.gather(1, parents[:, :, None].expand_as(before))
        kept.scatter_(2, at[:, None, None].expand(-1, self.count, 1), tokens[:, :, None])
        self.tokens[slots] = torch.where(was[:, None, None], kept, before)
        self.scores[slots] = torch.where(was[:, None], scores, self.scores[slots])
        self.made[slots] = torch.where(was, made, made - 1)
        self.running[slots] = was & ~last & (self._finished[slots] < self.count)
        return parents

    def _finish(
        self, slots: Tensor, counts: Tensor, scores: Tensor, parents: Tensor, tokens: Tensor, at: Tensor
    ) -> None:
        """at: [n] where the new token is among those of its answer."""
        made = at + 1
        lengths = made[:, None].expand_as(tokens)
        if self._length == "full":
            lengths = lengths + self.prompt[slots][:, None] - (tokens == self._end).long()
        divided = torch.where(counts, scores / lengths, -torch.inf)
        best = divided.amax(1)
        first = (divided == best[:, None]).int().argmax(1, keepdim=True)  # of equal ones
        better = best > self._best[slots]
        parent = parents.gather(1, first)[:, :, None]
        answer = self.tokens[slots].gather(1, parent.expand(-1, 1, self.tokens.shape[2])).squeeze(1)
        answer = answer.scatter(1, at[:, None], tokens.gather(1, first))
        self.answers[slots] = torch.where(better[:, None], answer, self.answers[slots])
        self.lengths[slots] = torch.where(better, made, self.lengths[slots])
        self._best[slots] = torch.where(better, best, self._best[slots])
        self._finished[slots] = self._finished[slots] + counts.sum(1)


def of(name: Any) -> Length:
    """The length rule of that name. Raises ValueError for another."""
    for known in LENGTHS:
        if name == known:
            return known
    raise ValueError(f"beam_length {name!r}: use one of {', '.join(LENGTHS)}")
