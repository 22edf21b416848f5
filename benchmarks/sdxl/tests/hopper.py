"""Prints Triton's code of the convolutions for an H200, as SDXL launches them in full size; needs no GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from bench_sdxl.pytorch import convolution
from bench_sdxl.pytorch.products import FLOAT8

KERNEL: Any = convolution._convolve
QUANTISED = ((64, 640), (32, 1280))
"""Side and channels of the U-Net's images."""
DOUBLED = ((32, 1280), (64, 640), (128, 512), (256, 512), (512, 256))
"""Of the U-Net's, and then of the decoder's."""


class Hopper:
    """What Triton asks a GPU's driver for before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Printed:
    """In the kernel's place: is compiled as it would be launched."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launched(*arguments: Any, **options: Any) -> None:
            print(KERNEL.warmup(*arguments, grid=grid, **options).asm["ttgir"])

        return launched


def image(side: int, channels: int, dtype: torch.dtype) -> Tensor:
    made = torch.empty((1, channels, side, side), dtype=dtype, device="meta")
    return made.contiguous(memory_format=torch.channels_last)


def main() -> None:
    driver.set_active(Hopper())
    convolution._convolve = Printed()
    half = torch.bfloat16
    for side, channels in QUANTISED:
        weight = torch.empty((channels, 9 * channels), dtype=FLOAT8, device="meta")
        convolution.convolve(image(side, channels, FLOAT8), weight, 0.5, half)
    for side, channels in DOUBLED:
        weight = torch.empty((4 * channels, 4 * channels), dtype=half, device="meta")
        bias = torch.empty(channels, dtype=half, device="meta")
        convolution.convolve_doubled(image(side, channels, half), weight, bias)


main()
