"""The autoencoder's decoder, latents -> image, by the names of its official weights (Rombach et al. 2022).

The encoder is no part of the benchmark: it is here to train the miniature, and to write whole official files.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bench_sdxl.config import VAEConfig
from bench_sdxl.pytorch.layers import Downsample, ResnetBlock, Upsample

_EPSILON = 1e-6


class Attention(nn.Module):
    """One head over all positions of an image."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=_EPSILON)
        self.to_q, self.to_k, self.to_v = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (part(tokens)[:, None] for part in (self.to_q, self.to_k, self.to_v))
        attended = self.to_out[0](F.scaled_dot_product_attention(q, k, v)[:, 0])
        out: Tensor = x + attended.transpose(1, 2).reshape(x.shape)
        return out


class Middle(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, width, groups, _EPSILON) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(width, groups)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](x)))
        return out


class Level(nn.Module):
    """Residual blocks of one resolution, and what leads to the next."""

    def __init__(self, inputs: int, outputs: int, count: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(outputs if number else inputs, outputs, groups, _EPSILON) for number in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        for name in ("upsamplers", "downsamplers"):
            for change in getattr(self, name, ()):
                x = change(x)
        return x


class Decoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups)
        self.up_blocks = nn.ModuleList(
            Level(widths[max(0, place - 1)], width, config.layers_per_block + 1, groups)
            for place, width in enumerate(widths)
        )
        for level, width in zip(self.up_blocks[:-1], widths, strict=False):
            level.upsamplers = nn.ModuleList([Upsample(width)])
        self.conv_norm_out, self.conv_act = nn.GroupNorm(groups, widths[-1], eps=_EPSILON), nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return out


class Encoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(widths[max(0, place - 1)], width, config.layers_per_block, groups)
            for place, width in enumerate(widths)
        )
        for level, width in zip(self.down_blocks[:-1], widths, strict=False):
            level.downsamplers = nn.ModuleList([Downsample(width, 0)])
        self.mid_block = Middle(widths[-1], groups)
        self.conv_norm_out, self.conv_act = nn.GroupNorm(groups, widths[-1], eps=_EPSILON), nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(self.mid_block(x))))
        return out


class VAE(nn.Module):
    """encodes: with the encoder, which no image needs."""

    def __init__(self, config: VAEConfig, encodes: bool = False) -> None:
        super().__init__()
        channels = config.latent_channels
        if encodes:
            self.encoder = Encoder(config)
            self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)
        self.decoder = Decoder(config)

    def decode(self, latents: Tensor) -> Tensor:
        """Images [n, 3, H, W] from about -1 to 1, of latents already divided by the scaling factor."""
        out: Tensor = self.decoder(self.post_quant_conv(latents))
        return out

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latents, not yet scaled."""
        mean, log_variance = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        return mean, log_variance
