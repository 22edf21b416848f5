"""Prompt -> image: the text encoders, 20 guided steps of the U-Net from one fixed latent, the VAE's decoder.

Guidance (Ho and Salimans 2022): the noise is estimated with the negative prompt and with the prompt, in one batch in
that order, and what differs is taken eight times.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench_sdxl.config import Configs
from bench_sdxl.pytorch.euler import Schedule
from bench_sdxl.pytorch.text_encoder import TextEncoder
from bench_sdxl.pytorch.unet import UNet
from bench_sdxl.pytorch.vae import VAE

GUIDANCE = 8.0
"""The benchmark's."""


class Told(NamedTuple):
    """What the U-Net is told of prompts."""

    context: Tensor
    """[n, S, C] of both encoders, side by side."""
    pooled: Tensor
    """[n, projection_dim] of the second."""

    def joined(self, other: Told) -> Told:
        """This one, repeated as often as the other has rows, in front of the other."""
        count = len(other.pooled)
        context = torch.cat([self.context.expand(count, -1, -1), other.context])
        return Told(context, torch.cat([self.pooled.expand(count, -1), other.pooled]))


class Pipeline(nn.Module):
    """All networks; the names of the parts are the folders' of their weights."""

    def __init__(self, configs: Configs, encodes: bool = False) -> None:
        """encodes: with the VAE's encoder."""
        super().__init__()
        self.configs = configs
        self.text_encoder = TextEncoder(configs.text, projects=False)
        self.text_encoder_2 = TextEncoder(configs.text_2, projects=True)
        self.unet = UNet(configs.unet)
        self.vae = VAE(configs.vae, encodes)

    def tell(self, ids: Tensor, ids_2: Tensor) -> Told:
        """Prompts as ids [n, S] of both tokenizers."""
        first, _ = self.text_encoder(ids)
        second, pooled = self.text_encoder_2(ids_2)
        return Told(torch.cat([first, second], dim=-1), pooled)

    def denoise(
        self, prompts: Told, negative: Told, latents: Tensor, schedule: Schedule, guidance: float = GUIDANCE
    ) -> Tensor:
        """Clean latents [n, 4, H, W] in float32. latents [1, 4, H, W]: of deviation 1, the same for every prompt."""
        told, device = negative.joined(prompts), prompts.context.device
        side = self.configs.side
        sizes = _numbers([side, side, 0, 0, side, side], device)  # whole, not cropped
        estimate = self.unet.estimator(_numbers(schedule.timesteps.tolist(), device), *told, sizes)
        x = latents.to(device, torch.float32).expand(len(prompts.pooled), -1, -1, -1) * schedule.first_scale
        for step, (sigma, following) in enumerate(pairwise(schedule.sigmas.tolist())):
            scaled = (x / (sigma * sigma + 1) ** 0.5).to(told.context.dtype)
            noise = estimate(torch.cat([scaled, scaled]), step).float()
            without, within = noise.chunk(2)
            x = x + (without + guidance * (within - without)) * (following - sigma)
        return x

    def paint(self, latents: Tensor) -> Tensor:
        """uint8 [n, H, W, 3], red, green, blue."""
        dtype = self.vae.post_quant_conv.weight.dtype
        images = self.vae.decode((latents / self.configs.vae.scaling_factor).to(dtype)).float()
        return ((images / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _numbers(values: Sequence[float], device: torch.device) -> Tensor:
    """float32 [n], filled on the device: a GPU's recorded work cannot wait for a copy."""
    return torch.cat([torch.full((1,), value, dtype=torch.float32, device=device) for value in values])
