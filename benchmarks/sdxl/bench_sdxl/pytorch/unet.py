"""SDXL's denoising U-Net (Podell et al. 2023), by the names of its official weights.

Residual blocks that know the time, and at the deeper levels Transformers that attend to the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_sdxl.config import UNetConfig
from bench_sdxl.pytorch.layers import Downsample, ResnetBlock, Upsample


def sinusoids(values: Tensor, size: int) -> Tensor:
    """Cosines and sines of float32 [n] at `size / 2` frequencies from 1 to almost 1/10,000: [n, size]."""
    half = size // 2
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, dtype=torch.float32, device=values.device))
    angles = values[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Embedding(nn.Module):
    """Two linear layers on what the net is told: the time, or pooled prompt and image size."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inputs, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out


class Attention(nn.Module):
    """Of image positions to each other, or to the prompt's tokens."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = nn.Linear(context, width, bias=False), nn.Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        parts = self.to_q(x), self.to_k(context), self.to_v(context)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.to_out[0](attended.transpose(1, 2).flatten(2))
        return out


class GEGLU(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        out: Tensor = value * F.gelu(gate)
        return out


class FeedForward(nn.Module):
    """Its second layer is number 2, because a dropout was number 1 in training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net[2](self.net[0](x))
        return out


class TransformerBlock(nn.Module):
    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn1 = Attention(width, width, heads)
        self.attn2 = Attention(width, context, heads)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        own = self.norm1(x)
        x = x + self.attn1(own, own)
        x = x + self.attn2(self.norm2(x), context)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class Transformer(nn.Module):
    """`depth` blocks over the positions of an image [n, C, H, W]."""

    def __init__(self, width: int, context: int, heads: int, depth: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(width, context, heads) for _ in range(depth))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        n, _, height, width = x.shape
        tokens = self.proj_in(self.norm(x).permute(0, 2, 3, 1).reshape(n, height * width, -1))
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        out: Tensor = x + self.proj_out(tokens).reshape(n, height, width, -1).permute(0, 3, 1, 2)
        return out


class Level(nn.Module):
    """Residual blocks of one resolution, each with a Transformer behind it where the level has any."""

    def __init__(self, config: UNetConfig, channels: list[tuple[int, int]], level: int, attends: bool) -> None:
        """channels: of each block, in and out."""
        super().__init__()
        groups, time = config.norm_num_groups, 4 * config.block_out_channels[0]
        self.resnets = nn.ModuleList(ResnetBlock(a, b, groups, 1e-5, time) for a, b in channels)
        width = config.block_out_channels[level]
        heads, depth = config.attention_head_dim[level], config.transformer_layers_per_block[level]
        count = len(channels) if attends else 0
        self.attentions = nn.ModuleList(
            Transformer(width, config.cross_attention_dim, heads, depth, groups) for _ in range(count)
        )

    def block(self, number: int, x: Tensor, time: Tensor, context: Tensor, beside: Tensor | None = None) -> Tensor:
        """Block `number`, which reads the channels of x and then those beside it, and its Transformer."""
        x = self.resnets[number](x, time, beside)
        return self.attentions[number](x, context) if self.attentions else x


class DownLevel(Level):
    def __init__(self, config: UNetConfig, level: int) -> None:
        widths = config.block_out_channels
        width = widths[level]
        channels = [(widths[max(0, level - 1)], width)] + [(width, width)] * (config.layers_per_block - 1)
        super().__init__(config, channels, level, config.down_block_types[level].startswith("CrossAttn"))
        if level < len(widths) - 1:
            self.downsamplers = nn.ModuleList([Downsample(width, 1)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor, kept: list[Tensor]) -> Tensor:
        """Adds what each block makes to `kept`, for the way up."""
        for number in range(len(self.resnets)):
            x = self.block(number, x, time, context)
            kept.append(x)
        if hasattr(self, "downsamplers"):
            x = self.downsamplers[0](x)
            kept.append(x)
        return x


class UpLevel(Level):
    def __init__(self, config: UNetConfig, place: int) -> None:
        """place: 0 for the deepest level."""
        widths = config.block_out_channels
        level = len(widths) - 1 - place
        width, deeper, higher = widths[level], widths[min(level + 1, len(widths) - 1)], widths[max(0, level - 1)]
        count = config.layers_per_block + 1
        kept = [width] * (count - 1) + [higher]
        channels = [((width if number else deeper) + kept[number], width) for number in range(count)]
        super().__init__(config, channels, level, config.up_block_types[place].startswith("CrossAttn"))
        if level:
            self.upsamplers = nn.ModuleList([Upsample(width)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor, kept: list[Tensor]) -> Tensor:
        """Takes from the end of `kept`."""
        for number in range(len(self.resnets)):
            x = self.block(number, x, time, context, kept.pop())
        return self.upsamplers[0](x) if hasattr(self, "upsamplers") else x


class Middle(Level):
    def __init__(self, config: UNetConfig) -> None:
        width, last = config.block_out_channels[-1], len(config.block_out_channels) - 1
        super().__init__(config, [(width, width)] * 2, last, attends=True)
        del self.attentions[1]

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, time), context)
        out: Tensor = self.resnets[1](x, time)
        return out


Estimator: TypeAlias = "Callable[[Tensor, int], Tensor]"
"""The noise in scaled latents, at the step of this number."""


class UNet(nn.Module):
    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        first, levels = config.block_out_channels[0], len(config.block_out_channels)
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.time_embedding = Embedding(first, 4 * first)
        self.add_embedding = Embedding(config.projection_class_embeddings_input_dim, 4 * first)
        self.down_blocks = nn.ModuleList(DownLevel(config, level) for level in range(levels))
        self.mid_block = Middle(config)
        self.up_blocks = nn.ModuleList(UpLevel(config, place) for place in range(levels))
        self.conv_norm_out, self.conv_act = nn.GroupNorm(config.norm_num_groups, first, eps=1e-5), nn.SiLU()
        self.conv_out = nn.Conv2d(first, config.out_channels, 3, padding=1)

    def added(self, pooled: Tensor, sizes: Tensor) -> Tensor:
        """What is the same at every step: of pooled prompts [n, projection_dim] and the six numbers [6] of the
        image's size and crop, an embedding [n, 4 * width]."""
        numbers = sinusoids(sizes, self.config.addition_time_embed_dim).flatten().to(pooled.dtype)
        out: Tensor = self.add_embedding(torch.cat([pooled, numbers.expand(len(pooled), -1)], dim=-1))
        return out

    def estimator(self, timesteps: Tensor, context: Tensor, pooled: Tensor, sizes: Tensor) -> Estimator:
        """What estimates the noise for these prompts; see `added` and `forward`. Computes what all steps share."""
        added = self.added(pooled, sizes)
        return lambda x, step: self(x, timesteps[step : step + 1], context, added)

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor, added: Tensor) -> Tensor:
        """The noise in scaled latents [n, 4, H, W] at a timestep ([1] or [n]), told prompts [n, S, C]."""
        time = sinusoids(timestep, self.config.block_out_channels[0]).to(x.dtype)
        return self.estimated(x, F.silu(self.time_embedding(time) + added), context)

    def estimated(self, x: Tensor, time: Any, context: Any) -> Tensor:
        """The noise; time and context: as the blocks read them."""
        x = self.conv_in(x)
        kept = [x]
        for down in self.down_blocks:
            x = down(x, time, context, kept)
        x = self.mid_block(x, time, context)
        for up in self.up_blocks:
            x = up(x, time, context, kept)
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return out
