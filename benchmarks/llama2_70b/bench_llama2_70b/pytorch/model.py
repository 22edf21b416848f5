"""The Llama network: tokens and their positions in, logits out. Attention is given: this file knows no cache.

Tokens have any leading shape `...`: `[T]` while it serves, `[n, T]` while the miniature is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_llama2_70b.config import LlamaConfig
from bench_llama2_70b.pytorch.parallel import ALONE, Share

Attend: TypeAlias = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries [..., heads, D], keys and values [..., key-value heads, D]) -> [..., heads, D]."""


class Linear(nn.Module):
    """Without bias. `scale`, of each output, is there for weights in 8 bits."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.scale: nn.Parameter | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is None:
            return F.linear(x, self.weight)
        return linear8(x, self.weight, self.scale)


def linear8(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x [..., inputs] times an e4m3 weight [outputs, inputs] with a scale of each output.

    Each row of x is rounded to e4m3 with a scale of its own. A CPU computes with the rounded numbers in x's format.
    """
    rounded, of_rows = rounded8(x.reshape(-1, x.shape[-1]))
    return product8(rounded, of_rows, weight, scale).to(x.dtype).reshape(*x.shape[:-1], len(weight))


def product8(rows: Tensor, of_rows: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Rows and weight in e4m3, each with its scales -> [n, outputs], in bfloat16 on a GPU and in float32 on a CPU."""
    if rows.is_cuda:
        return torch._scaled_mm(
            rows, weight.t(), scale_a=of_rows, scale_b=scale.t(), out_dtype=torch.bfloat16, use_fast_accum=True
        )
    return (rows.float() @ weight.float().t()) * of_rows * scale.t()


def rounded8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(rows in e4m3, the scale [n, 1] of each in float32): a row's largest value becomes e4m3's, 448."""
    largest = torch.finfo(torch.float8_e4m3fn).max
    scale = rows.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-12) / largest
    return (rows.float() / scale).clamp(-largest, largest).to(torch.float8_e4m3fn), scale


class RMSNorm(nn.Module):
    """Divides by the root of the mean square, which is computed in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * wide.to(x.dtype)


def rotation(positions: Tensor, config: LlamaConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., 1, D / 2] in float32 of the angles by which pairs of channels are turned."""
    half = torch.arange(0, config.head_size, 2, device=positions.device).float() / config.head_size
    angles = positions[..., None, None].float() * (1.0 / config.rope_theta**half)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x [..., heads, D] turned: channel i pairs with channel i + D / 2 (the half-split layout of Hugging Face's files;
    Meta's own pair neighbours)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


class Attention(nn.Module):
    """Grouped queries: `heads / key-value heads` queries share a key and a value."""

    def __init__(self, config: LlamaConfig, share: Share) -> None:
        super().__init__()
        self.size, self.share = config.head_size, share
        self.heads = config.num_attention_heads // share.count
        self.groups = config.num_key_value_heads // share.count
        self.qkv = Linear(config.hidden_size, (self.heads + 2 * self.groups) * self.size)
        self.out = Linear(self.heads * self.size, config.hidden_size)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], attend: Attend, layer: int) -> Tensor:
        columns = self.qkv(x).unflatten(-1, (-1, self.size))
        turning, values = torch.split(columns, [self.heads + self.groups, self.groups], dim=-2)
        turned = rotated(turning, *turn).to(x.dtype)
        queries, keys = torch.split(turned, [self.heads, self.groups], dim=-2)
        return self.share.sum(self.out(attend(layer, queries, keys, values).flatten(-2)))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LlamaConfig, share: Share) -> None:
        super().__init__()
        inner = config.intermediate_size // share.count
        self.share = share
        self.gate_up = Linear(config.hidden_size, 2 * inner)
        self.down = Linear(inner, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.share.sum(self.down(F.silu(gate) * up))


class Layer(nn.Module):
    def __init__(self, config: LlamaConfig, share: Share) -> None:
        super().__init__()
        self.before_attention = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, share)
        self.before_mlp = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config, share)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], attend: Attend, layer: int) -> Tensor:
        x = x + self.attention(self.before_attention(x), turn, attend, layer)
        made: Tensor = x + self.mlp(self.before_mlp(x))
        return made


class Llama(nn.Module):
    """One rank's share of the network; the weights are not initialised."""

    def __init__(self, config: LlamaConfig, share: Share = ALONE) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.layers = nn.ModuleList(Layer(config, share) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = Linear(config.hidden_size, config.vocab_size)

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
