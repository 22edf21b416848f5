"""The network of `model` by the kernels of `kernels`: same weights, same roundings, fewer passes over memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from bench_gpt_j.pytorch import kernels
from bench_gpt_j.pytorch.cache import Cache, Chunk
from bench_gpt_j.pytorch.model import GPTJ, Layer, rotation

AttendInto: TypeAlias = Callable[[int, Tensor, Tensor], None]
"""(layer, queries [T, heads, D], out [T, d + inner], whose first columns it fills)."""


class Fused:
    """The network and its cache. Tokens, positions, slots and places are [T], on the device."""

    def __init__(self, model: GPTJ, cache: Cache) -> None:
        self.model, self.cache = model, cache
        cosines, sines = rotation(torch.arange(model.config.n_positions, device=model.embed.device), model.config)
        self._turns = cosines.squeeze(1).contiguous(), sines.squeeze(1).contiguous()

    def fill(self, tokens: Tensor, positions: Tensor, slots: Tensor, places: Tensor, chunks: Sequence[Chunk]) -> Tensor:
        """[T, d] of chunks of prompts."""

        def attend(layer: int, queries: Tensor, out: Tensor) -> None:
            out[:, : queries[0].numel()] = self.cache.chunks(layer, queries, chunks).flatten(1)

        return self._hidden(tokens, positions.int(), slots.int(), places.int(), attend)

    def extend(self, tokens: Tensor, positions: Tensor, slots: Tensor, places: Tensor, lengths: Tensor) -> Tensor:
        """[n * beams, d] of one token of each beam of the first n slots, of which so many places are in use."""

        def attend(layer: int, queries: Tensor, out: Tensor) -> None:
            keys, values = self.cache.keys[layer], self.cache.values[layer]
            kernels.attended(queries, keys, values, self.cache.seen, lengths, out)

        return self._hidden(tokens, positions, slots, places, attend)

    def _hidden(self, tokens: Tensor, positions: Tensor, slots: Tensor, places: Tensor, attend: AttendInto) -> Tensor:
        x = F.embedding(tokens, self.model.embed)
        config = self.model.config
        added: Tensor | None = None
        for number, layer in enumerate(self.model.layers):
            assert isinstance(layer, Layer)
            into = kernels.normed(x, added, layer.norm.weight, layer.norm.bias, layer.norm.eps)
            both = x.new_empty((len(x), config.n_embd + config.inner))
            keys, values = self.cache.keys[number], self.cache.values[number]
            queries = kernels.turned(layer.into(into), self._turns, positions, slots, places, keys, values, both)
            attend(number, queries, both)
            added = layer.out(both)
        return x if added is None else x + added
