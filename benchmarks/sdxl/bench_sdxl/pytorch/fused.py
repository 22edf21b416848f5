"""The U-Net and the VAE's decoder for a GPU: the same weights, with fewer ways to memory and back.

`fuse` puts blocks of this module in the place of the plain ones. Queries, keys and values are one product; keys and
values of the prompt are computed once an image, as they are the same at every step, and so are the times' embeddings.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_sdxl.pytorch import convolution, layers, unet, vae
from bench_sdxl.pytorch.attention import attend
from bench_sdxl.pytorch.kernels import add, converted, gelu_gated, group_norm, layer_norm
from bench_sdxl.pytorch.pipeline import Pipeline
from bench_sdxl.pytorch.products import Convolution, Product


class ResnetBlock(nn.Module):
    """See `layers.ResnetBlock`. Biases of the convolutions are added where their outputs are read."""

    def __init__(self, plain: layers.ResnetBlock, part: slice | None = None) -> None:
        """part: which of all blocks' time embeddings are this one's; None: the block knows no time."""
        super().__init__()
        self.norm1, self.norm2, self.part = plain.norm1, plain.norm2, part
        self.conv1, self.conv2 = Convolution(plain.conv1), Convolution(plain.conv2)
        self.products = [self.conv1, self.conv2]
        self.first = cast(Tensor, plain.conv1.bias)
        bias, shortcut = cast(Tensor, plain.conv2.bias), plain.conv_shortcut
        self.shortcut = None if shortcut is None else shortcut.weight.flatten(1)
        self.bias = bias if shortcut is None else bias + cast(Tensor, shortcut.bias)

    def forward(self, x: Tensor, time: Tensor | None = None, beside: Tensor | None = None) -> Tensor:
        """time [n, all blocks' outputs]: embeddings, this block's with the bias of its first convolution."""
        shift = self.first.expand(len(x), -1) if time is None else time[:, self.part]
        inner = self.conv1(group_norm(x, self.norm1, silu=True, form=self.conv1.form, beside=beside))
        inner = self.conv2(group_norm(inner, self.norm2, shift, silu=True, form=self.conv2.form))
        return add(inner, x if self.shortcut is None else self._projected(x, beside), self.bias)

    def _projected(self, x: Tensor, beside: Tensor | None) -> Tensor:
        """By the shortcut's 1 x 1 convolution, without its bias."""
        assert self.shortcut is not None
        n, channels, height, width = x.shape
        made = F.linear(_rows(x), self.shortcut[:, :channels])
        if beside is not None:
            made.addmm_(_rows(beside), self.shortcut[:, channels:].t())
        return made.view(n, height, width, -1).permute(0, 3, 1, 2)


class NormSiLU(nn.Module):
    """A group norm, and SiLU of what comes out."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self.norm, silu=True)


def _fuse_head(network: Any) -> None:
    """What comes before the last convolution."""
    network.conv_norm_out, network.conv_act = NormSiLU(network.conv_norm_out), nn.Identity()


class Upsample(nn.Module):
    """See `layers.Upsample`: without the larger image in between."""

    def __init__(self, plain: layers.Upsample) -> None:
        super().__init__()
        self.plain = plain
        self.weight = convolution.doubled(plain.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        _, inputs, height, width = x.shape
        if not convolution.fits(height, width, inputs, len(self.weight) // 4, convolution.HALF):
            plain: Tensor = self.plain(x)
            return plain
        return convolution.convolve_doubled(x, self.weight, cast(Tensor, self.plain.conv.bias))


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
        self.qkv = Product(torch.cat([own.to_q.weight, own.to_k.weight, own.to_v.weight]))
        self.query = Product(other.to_q.weight)
        self.out, self.out2 = (Product(part.to_out[0].weight, part.to_out[0].bias) for part in (own, other))
        self.keys_values = torch.cat([other.to_k.weight, other.to_v.weight])
        self.first, self.second = (Product(part.weight, part.bias) for part in (plain.ff.net[0].proj, plain.ff.net[2]))
        self.products = [self.qkv, self.out, self.query, self.out2, self.first, self.second]

    def forward(self, x: Tensor, delta: Tensor | None, context: Tensor) -> Tensor:
        """x [n * S, C], to which delta is not yet added, and is here; what this block adds at last.

        context [2, n, heads, tokens, C / heads]: keys and values.
        """
        n = context.shape[1]
        width = x.shape[1] // self.heads
        own = self.qkv(layer_norm(x, self.norm1, delta, self.qkv.form)).view(n, -1, 3, self.heads, width)
        delta = self.out(converted(_attended(*own.permute(2, 0, 3, 1, 4)), self.out.form))
        q = self.query(layer_norm(x, self.norm2, delta, self.query.form))
        delta = self.out2(attend(q, context, self.out2.form))
        both = self.first(layer_norm(x, self.norm3, delta, self.first.form))
        return self.second(gelu_gated(both, self.second.form))

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
        self.blocks = [TransformerBlock(block) for block in plain.transformer_blocks]

    def forward(self, x: Tensor, context: list[Tensor]) -> Tensor:
        """context: of all blocks."""
        n, _, height, width = x.shape
        tokens, delta = self.proj_in(_rows(group_norm(x, self.norm, silu=False))), None
        for number, block in enumerate(self.blocks):
            delta = block(tokens, delta, context[self.first + number])
        made = F.linear(tokens + delta, self.proj_out.weight).view(n, height, width, -1).permute(0, 3, 1, 2)
        return add(made, x, self.proj_out.bias)


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


class UNet(nn.Module):
    """See `unet.UNet`."""

    def __init__(self, plain: unet.UNet) -> None:
        """Takes the plain one apart."""
        super().__init__()
        self.plain = plain
        self.blocks: list[TransformerBlock] = []
        """In the order in which the prompt's keys and values are told."""
        self.resnets: list[ResnetBlock] = []
        weights, biases, at = [], [], 0
        levels: list[Any] = [*plain.down_blocks, plain.mid_block, *plain.up_blocks]
        for level in levels:
            for number, block in enumerate(level.resnets):
                weights.append(block.time_emb_proj.weight)
                biases.append(block.time_emb_proj.bias + block.conv1.bias)
                level.resnets[number] = ResnetBlock(block, slice(at, at + len(biases[-1])))
                at += len(biases[-1])
            self.resnets.extend(level.resnets)
            for number, transformer in enumerate(level.attentions):
                level.attentions[number] = fused = Transformer(transformer, len(self.blocks))
                self.blocks.extend(fused.blocks)
            _fuse_upsamplers(level)
        _fuse_head(plain)
        self.weight, self.bias = torch.cat(weights), torch.cat(biases)

    @property
    def products(self) -> list[Product]:
        """Those that can be quantised."""
        both: list[Any] = [*self.blocks, *self.resnets]
        return [product for block in both for product in block.products if product.can_be_quantised]

    def estimator(self, timesteps: Tensor, context: Tensor, pooled: Tensor, sizes: Tensor) -> unet.Estimator:
        """See `unet.UNet.estimator`: also keys and values, and what each block makes of the time, are computed here."""
        time = unet.sinusoids(timesteps, self.plain.config.block_out_channels[0]).to(context.dtype)
        time = self.plain.time_embedding(time)[:, None] + self.plain.added(pooled, sizes)
        times, told = F.linear(F.silu(time), self.weight, self.bias), [block.told(context) for block in self.blocks]
        return lambda x, step: self.plain.estimated(x, times[step], told)


def _fuse_upsamplers(level: Any) -> None:
    for number, plain in enumerate(getattr(level, "upsamplers", [])):
        if convolution.is_offered(plain.conv.weight):
            level.upsamplers[number] = Upsample(plain)


def fuse(pipeline: Pipeline) -> None:
    """Put this module's blocks in the place of the plain ones."""
    pipeline.unet = UNet(pipeline.unet)  # type: ignore[assignment]
    decoder: Any = pipeline.vae.decoder
    decoder.mid_block.attentions[0] = Attention(decoder.mid_block.attentions[0])
    _fuse_head(decoder)
    for level in (decoder.mid_block, *decoder.up_blocks):
        for number, block in enumerate(level.resnets):
            level.resnets[number] = ResnetBlock(block)
        _fuse_upsamplers(level)
