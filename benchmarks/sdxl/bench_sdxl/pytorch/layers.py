"""Blocks that the U-Net and the VAE share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResnetBlock(nn.Module):
    """Two convolutions around a residual; a time embedding, where there is one, is added between them."""

    def __init__(self, inputs: int, outputs: int, groups: int, epsilon: float, time: int = 0) -> None:
        """time: size of the embedding; 0: the block knows no time, as in the VAE."""
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=epsilon)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        if time:
            self.time_emb_proj = nn.Linear(time, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=epsilon)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, time: Tensor | None = None, beside: Tensor | None = None) -> Tensor:
        """x [n, C, H, W]; time [n or 1, size], after its activation; beside: more channels, behind those of x."""
        if beside is not None:
            x = torch.cat([x, beside], dim=1)
        inner = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            inner = inner + self.time_emb_proj(time)[:, :, None, None]
        inner = self.conv2(F.silu(self.norm2(inner)))
        out: Tensor = inner + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return out


class Downsample(nn.Module):
    """Half the height and width. padding: 1 on all sides, or 0: one row and column at the far end only."""

    def __init__(self, width: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=padding)
        self.far = 0 if padding else 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, self.far, 0, self.far)) if self.far else x)
        return out


class Upsample(nn.Module):
    """Twice the height and width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out
