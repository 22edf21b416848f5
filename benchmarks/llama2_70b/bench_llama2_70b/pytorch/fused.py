"""The network of `model` by the kernels of `kernels`: same weights, same roundings, fewer passes over memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench_llama2_70b.pytorch import kernels
from bench_llama2_70b.pytorch.cache import Cache
from bench_llama2_70b.pytorch.kernels import Rows, Tiles
from bench_llama2_70b.pytorch.model import Layer, Linear, Llama, product8, rotation


@dataclass(frozen=True)
class Batch:
    """What a step computes, on the device, in int32: `single` rows of one token, then rows of several."""

    tokens: Tensor
    positions: Tensor
    places: Tensor
    """[T] where each token is kept in the cache."""
    pages: Tensor
    """[rows, P]"""
    single: int
    ones: Tiles
    """One for each of the first `single` tokens."""
    chunks: Tiles
    """Of the others."""


class Fused:
    """One rank's network and its cache."""

    def __init__(self, model: Llama, cache: Cache, longest: int) -> None:
        """longest: tokens of a request."""
        self.model, self.cache = model, cache
        cosines, sines = rotation(torch.arange(longest, device=model.embed.device), model.config)
        self._turns = cosines.squeeze(1).contiguous(), sines.squeeze(1).contiguous()
        self._tile = kernels.tile_size(model.config.num_attention_heads // model.config.num_key_value_heads)

    def hidden(self, batch: Batch) -> Tensor:
        """[T, d], before the last norm."""
        x = F.embedding(batch.tokens, self.model.embed)
        added: Tensor | None = None
        for number, layer in enumerate(self.model.layers):
            assert isinstance(layer, Layer)
            added = self._layer(layer, number, x, added, batch)
        return x if added is None else x + added

    def _layer(self, layer: Layer, number: int, x: Tensor, added: Tensor | None, batch: Batch) -> Tensor:
        """What the MLP adds to x; to x is added what came before."""
        share, norm = layer.attention.share, layer.before_attention
        into = kernels.normed(x, added, norm.weight, norm.epsilon, _is8(layer.attention.qkv))
        keys, values = self.cache.keys[number], self.cache.values[number]
        queries = kernels.turned(
            product(layer.attention.qkv, into), self._turns, batch.positions, batch.places, keys, values
        )
        seen = torch.empty_like(queries)
        if batch.single:
            kernels.attended(queries, keys, values, batch.ones, batch.pages, 1, seen)
        if len(batch.chunks.rows):
            kernels.attended(queries, keys, values, batch.chunks, batch.pages, self._tile, seen)
        out = layer.attention.out
        added = share.sum(product(out, kernels.rounded(seen.flatten(1), _is8(out))))
        norm = layer.before_mlp
        into = kernels.normed(x, added, norm.weight, norm.epsilon, _is8(layer.mlp.gate_up))
        inner = kernels.gated(product(layer.mlp.gate_up, into), _is8(layer.mlp.down))
        return share.sum(product(layer.mlp.down, inner))


def _is8(matrix: Linear) -> bool:
    return matrix.scale is not None


def product(matrix: Linear, rows: Rows) -> Tensor:
    """[T, outputs]."""
    if rows.scales is None or matrix.scale is None:
        return F.linear(rows.values, matrix.weight)
    return product8(rows.values, rows.scales, matrix.weight, matrix.scale).to(torch.bfloat16)
