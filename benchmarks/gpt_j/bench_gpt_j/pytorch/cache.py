"""Keys and values of beam searches: a prompt's once, read once for all beams; then each beam's own.

A sample's keys lie in one row: those of its prompt, then those of the first token of each beam, those of the second
token, and so on. When beams part, nothing moves: `seen` says which keys of the row each beam has behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from bench_gpt_j.config import GPTJConfig
from bench_gpt_j.pytorch.model import Attend

_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Of prompts. cuDNN's is left out: it plans anew for each length, which takes longer than an answer."""


class Chunk(NamedTuple):
    """A part of a prompt that a step computes."""

    slot: int
    start: int
    tokens: int


class Cache:
    """keys and values [layers, slots, heads, places, D]; seen [slots, beams, places]."""

    def __init__(self, config: GPTJConfig, slots: int, beams: int, places: int, like: Tensor) -> None:
        """places: of a sample, `prompt + beams * tokens of its answer` at the most. like: says device and format."""
        places = -(-places // 16) * 16  # a multiple, which a GPU's fast attention wants of a mask
        shape = (config.n_layer, slots, config.n_head, places, config.head_size)
        self.keys, self.values = (torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2))
        self.seen = torch.zeros((slots, beams, places), dtype=torch.bool, device=like.device)
        self.seen[:, :, 0] = True  # of slots that are free too: attention over nothing is not a number

    def begin(self, slots: Tensor, prompts: Tensor) -> None:
        """All beams see their prompts, which have so many tokens."""
        places = torch.arange(self.seen.shape[2], device=self.seen.device)
        self.seen[slots] = (places < prompts[:, None])[:, None].expand(-1, self.seen.shape[1], -1)

    def chunks(self, layer: int, queries: Tensor, chunks: Sequence[Chunk]) -> Tensor:
        """Attention of chunks of prompts, one after another, [T, heads, D]: each token sees those of its prompt before
        it, whose keys and values are here already."""
        made = torch.empty_like(queries)
        first = 0
        with sdpa_kernel(_ATTENTION):
            for slot, start, count in chunks:
                k, v = (kept[layer, slot, None, :, : start + count] for kept in (self.keys, self.values))
                q = queries[first : first + count].transpose(0, 1)[None]
                seen = F.scaled_dot_product_attention(q, k, v, attn_mask=causal_lower_right(count, start + count))
                made[first : first + count] = seen[0].transpose(0, 1)
                first += count
        return made

    def fill(self, slots: Tensor, places: Tensor, chunks: Sequence[Chunk]) -> Attend:
        """Chunks of prompts, whose tokens [T] go to these slots and places."""

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            for kept, new in ((self.keys, keys), (self.values, values)):
                kept[layer].transpose(1, 2)[slots, places] = new
            return self.chunks(layer, queries, chunks)

        return attend

    def part(self, slots: Tensor, parents: Tensor, places: Tensor) -> None:
        """In these slots each beam goes on from its parent [n, beams], with a place [n, beams] for its next token."""
        seen = self.seen[slots].gather(1, parents[:, :, None].expand(-1, -1, self.seen.shape[2]))
        self.seen[slots] = seen.scatter_(2, places[:, :, None], True)

    def extend(self, rows: int, places: Tensor, length: int) -> Attend:
        """One token of each beam of the first `rows` slots, which see no more than `length` places."""
        length = -(-length // 16) * 16
        mask = self.seen[:rows, None, :, :length]
        at = torch.arange(rows, device=places.device)[:, None]

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            for kept, new in ((self.keys, keys), (self.values, values)):
                kept[layer].transpose(1, 2)[at, places] = new  # [rows, beams, heads, D]
            k, v = (kept[layer, :rows, :, :length] for kept in (self.keys, self.values))
            return F.scaled_dot_product_attention(queries.transpose(1, 2), k, v, attn_mask=mask).transpose(1, 2)

        return attend
