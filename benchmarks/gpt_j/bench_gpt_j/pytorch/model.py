"""GPT-J: attention and MLP side by side, both from one norm, and both added to what came in.

So what they multiply with the same input lies in one matrix, and their two outputs are summed by another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_gpt_j.config import GPTJConfig

Attend: TypeAlias = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries, keys, values, each [..., heads, D]) -> [..., heads, D]."""


def rotation(positions: Tensor, config: GPTJConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., 1, rotary / 2] in float32 of the angles by which pairs of channels are turned."""
    part = torch.arange(0, config.rotary_dim, 2, device=positions.device).float() / config.rotary_dim
    angles = positions[..., None, None].float() * (1.0 / 10000.0**part)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x [..., heads, D] with its first channels turned: neighbours 2i and 2i + 1 are a pair. The rest stays."""
    turning, rest = x[..., : 2 * cosines.shape[-1]], x[..., 2 * cosines.shape[-1] :]
    even, odd = turning[..., ::2], turning[..., 1::2]
    turned = torch.stack([even * cosines - odd * sines, odd * cosines + even * sines], dim=-1)
    return torch.cat([turned.flatten(-2).to(x.dtype), rest], dim=-1)


class Layer(nn.Module):
    def __init__(self, config: GPTJConfig) -> None:
        super().__init__()
        width, self.heads = config.n_embd, config.n_head
        self.norm = nn.LayerNorm(width, config.layer_norm_epsilon)
        self.into = nn.Linear(width, 3 * width + config.inner)
        self.out = nn.Linear(width + config.inner, width)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], attend: Attend, layer: int) -> Tensor:
        width = x.shape[-1]
        columns, inner = self.into(self.norm(x)).tensor_split([3 * width], dim=-1)
        queries, keys, values = columns.unflatten(-1, (3, self.heads, -1)).unbind(-3)
        seen = attend(layer, rotated(queries, *turn), rotated(keys, *turn), values).flatten(-2)
        made: Tensor = x + self.out(torch.cat([seen, F.gelu(inner, approximate="tanh")], dim=-1))
        return made


class GPTJ(nn.Module):
    """The whole network."""

    def __init__(self, config: GPTJConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Parameter(torch.empty(config.vocab_size, config.n_embd))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.head = nn.Linear(config.n_embd, config.vocab_size)

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Hidden states [..., d] of tokens [...]; `logits` makes logits of those that are wanted."""
        x = F.embedding(tokens, self.embed)
        turn = rotation(positions, self.config)
        for number, layer in enumerate(self.layers):
            x = layer(x, turn, attend, number)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., vocabulary]."""
        made: Tensor = self.head(self.norm(hidden))
        return made


def causal(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of whole rows [n, T, heads, D], in which each token sees those before it: an `Attend`."""
    q, k, v = (x.transpose(1, 2) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
