"""The U-Net and the VAE's decoder for a GPU: the same weights, with fewer ways to memory and back.

`fuse` puts blocks of this module in the place of the plain ones. Queries, keys and values are one product; keys and
values of the prompt are computed once an image, as they are the same at every step, and so are the times' embeddings.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_sdxl.pytorch import layers, unet, vae
from bench_sdxl.pytorch.kernels import add, gelu_gated, group_norm, layer_norm


class ResnetBlock(nn.Module):
    """See `layers.ResnetBlock`. Biases of the convolutions are added where their outputs are read."""

    def __init__(self, plain: layers.ResnetBlock, number: slice | None) -> None:
        """number: which part of all blocks' time embeddings is this one's."""
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = plain.norm1, plain.conv1, plain.norm2, plain.conv2
        self.part, self.conv_shortcut = number, plain.conv_shortcut
        bias: Any = plain.conv2.bias
        self.first: Any = plain.conv1.bias  # of the first convolution, if no time is told
        self.bias: Tensor = bias if plain.conv_shortcut is None else bias + plain.conv_shortcut.bias

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """time [n, all blocks' outputs]: embeddings, this block's with the bias of its first convolution."""
        inner = _convolved(group_norm(x, self.norm1, silu=True), self.conv1)
        shift = self.first.expand(len(x), -1).contiguous() if time is None else time[:, self.part].contiguous()
        inner = _convolved(group_norm(inner, self.norm2, shift, silu=True), self.conv2)
        return add(inner, x if self.conv_shortcut is None else _convolved(x, self.conv_shortcut), self.bias)


def _convolved(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Without the bias."""
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding)


def _rows(x: Tensor) -> Tensor:
    """[n, C, H, W], channels last -> [n * H * W, C], the same numbers."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


class TransformerBlock(nn.Module):
    """See `unet.TransformerBlock`."""

    def __init__(self, plain: Any) -> None:
        """plain: `unet.TransformerBlock`."""
        super().__init__()
        self.norm1, self.norm2, self.norm3 = plain.norm1, plain.norm2, plain.norm3
        own, other = plain.attn1, plain.attn2
        self.heads = own.heads
        self.qkv = torch.cat([own.to_q.weight, own.to_k.weight, own.to_v.weight])
        self.out, self.query, self.out2 = own.to_out[0], other.to_q.weight, other.to_out[0]
        self.keys_values = torch.cat([other.to_k.weight, other.to_v.weight])
        self.first, self.second = plain.ff.net[0].proj, plain.ff.net[2]

    def forward(self, x: Tensor, delta: Tensor | None, context: Tensor) -> Tensor:
        """x [n * S, C], to which delta is not yet added, and is here; what this block adds at last.

        context [2, n, heads, tokens, C / heads]: keys and values.
        """
        n = context.shape[1]
        width = x.shape[1] // self.heads
        own = F.linear(layer_norm(x, self.norm1, delta), self.qkv).view(n, -1, 3, self.heads, width)
        delta = self.out(_attended(*own.permute(2, 0, 3, 1, 4)))
        q = F.linear(layer_norm(x, self.norm2, delta), self.query).view(n, -1, self.heads, width).transpose(1, 2)
        delta = self.out2(_attended(q, context[0], context[1]))
        out: Tensor = self.second(gelu_gated(self.first(layer_norm(x, self.norm3, delta))))
        return out

    def told(self, context: Tensor) -> Tensor:
        """Keys and values of prompts [n, tokens, size]."""
        n, tokens, _ = context.shape
        both = F.linear(context, self.keys_values).view(n, tokens, 2, self.heads, -1)
        return both.permute(2, 0, 3, 1, 4).contiguous()


def _attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[n, heads, S, size] three times -> [n * S, heads * size]."""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1).flatten(1)


class Transformer(nn.Module):
    """See `unet.Transformer`."""

    def __init__(self, plain: unet.Transformer, first: int) -> None:
        """first: number of its first block among all."""
        super().__init__()
        self.norm, self.proj_in, self.proj_out, self.first = plain.norm, plain.proj_in, plain.proj_out, first
        self.blocks = nn.ModuleList(TransformerBlock(block) for block in plain.transformer_blocks)

    def forward(self, x: Tensor, context: list[Tensor]) -> Tensor:
        """context: of all blocks."""
        n, _, height, width = x.shape
        tokens, delta = self.proj_in(_rows(group_norm(x, self.norm, silu=False))), None
        for number, block in enumerate(self.blocks):
            delta = block(tokens, delta, context[self.first + number])
        made = F.linear(tokens + delta, self.proj_out.weight).view(n, height, width, -1).permute(0, 3, 1, 2)
        return add(made, x, self.proj_out.bias)


class UNet(nn.Module):
    """See `unet.UNet`; steps know what `told` and `times` have computed."""

    def __init__(self, plain: unet.UNet) -> None:
        """Takes the plain one apart."""
        super().__init__()
        self.config, self.plain = plain.config, plain
        levels: list[Any] = [*plain.down_blocks, plain.mid_block, *plain.up_blocks]
        self.blocks: list[TransformerBlock] = []
        weights, biases, at = [], [], 0
        for level in levels:
            for number, block in enumerate(level.resnets):
                weights.append(block.time_emb_proj.weight)
                biases.append(block.time_emb_proj.bias + block.conv1.bias)
                level.resnets[number] = ResnetBlock(block, slice(at, at + len(biases[-1])))
                at += len(biases[-1])
            for number, transformer in enumerate(level.attentions):
                level.attentions[number] = fused = Transformer(transformer, len(self.blocks))
                self.blocks.extend(fused.blocks)  # type: ignore[arg-type]
        self.weight, self.bias = torch.cat(weights), torch.cat(biases)

    def told(self, context: Tensor) -> list[Tensor]:
        """Of prompts [n, S, C], each block's keys and values."""
        return [block.told(context) for block in self.blocks]

    def times(self, timesteps: Tensor, added: Tensor) -> Tensor:
        """Of timesteps [steps] and embeddings [n, size], each step's embeddings of all blocks [steps, n, all]."""
        first = self.config.block_out_channels[0]
        time = self.plain.time_embedding(unet.sinusoids(timesteps, first).to(added.dtype))
        return F.linear(F.silu(time[:, None] + added), self.weight, self.bias)

    def forward(self, x: Tensor, time: Tensor, context: list[Tensor]) -> Tensor:
        """The noise in scaled latents [n, 4, H, W], channels last, at one step."""
        x = self.plain.conv_in(x)
        kept = [x]
        for down in self.plain.down_blocks:
            x = down(x, time, context, kept)
        x = self.plain.mid_block(x, time, context)
        for up in self.plain.up_blocks:
            x = up(x, time, context, kept)
        out: Tensor = self.plain.conv_out(group_norm(x, self.plain.conv_norm_out, silu=True))
        return out


class Attention(nn.Module):
    """See `vae.Attention`."""

    def __init__(self, plain: vae.Attention) -> None:
        super().__init__()
        parts = plain.to_q, plain.to_k, plain.to_v
        self.norm, self.out = plain.group_norm, cast(nn.Linear, plain.to_out[0])
        self.weight, self.bias = (torch.cat([getattr(part, kind) for part in parts]) for kind in ("weight", "bias"))

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        tokens = F.linear(_rows(group_norm(x, self.norm, silu=False)), self.weight, self.bias)
        q, k, v = tokens.view(n, -1, 3, 1, channels).permute(2, 0, 3, 1, 4)
        made = F.linear(_attended(q, k, v), self.out.weight).view(n, height, width, -1).permute(0, 3, 1, 2)
        return add(made, x, self.out.bias)


class Decoder(nn.Module):
    """See `vae.VAE.decode`."""

    def __init__(self, plain: vae.VAE) -> None:
        """Takes the plain one apart."""
        super().__init__()
        self.plain = plain
        middle: Any = plain.decoder.mid_block
        middle.attentions[0] = Attention(middle.attentions[0])
        for level in (middle, *plain.decoder.up_blocks):
            for number, block in enumerate(level.resnets):
                level.resnets[number] = ResnetBlock(block, None)

    def forward(self, latents: Tensor) -> Tensor:
        """Images [n, 3, H, W] of latents already divided by the scaling factor, channels last."""
        decoder = self.plain.decoder
        x = decoder.mid_block(decoder.conv_in(self.plain.post_quant_conv(latents)))
        for level in decoder.up_blocks:
            x = level(x)
        out: Tensor = decoder.conv_out(group_norm(x, decoder.conv_norm_out, silu=True))
        return out
