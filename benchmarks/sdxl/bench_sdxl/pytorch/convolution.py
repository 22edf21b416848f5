"""Triton's convolutions where they beat cuDNN's: of float8, and after an image was doubled.

One tile of pixels times one tile of channels, as a matrix product: for each of the kernel's taps the tile's pixels lie
elsewhere in the image, and the GPU's copying engine finds zeros outside of it.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


class Tile(NamedTuple):
    """How a product is cut: the fastest of six on an H200, by the sum over SDXL's sizes."""

    pixels: int
    outputs: int
    inputs: int
    stages: int


FLOAT8 = Tile(256, 128, 128, 3)
HALF = Tile(256, 128, 64, 3)
"""Of 16 bits."""
_GROUP = 8
"""Tiles of pixels that follow each other: they read the same weights, and find them in the cache."""


@triton.jit
def _convolve(
    x,
    weight,
    bias,
    out,
    scale,
    height,
    width,
    inputs,
    outputs,
    SIDE: tl.constexpr,
    PHASES: tl.constexpr,
    LINES: tl.constexpr,
    COLUMNS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    GROUP: tl.constexpr,
    BIASED: tl.constexpr,
):
    """SIDE: taps in each direction. PHASES 4: pixels are written two apart, and in each of the four places between
    come from weights of its own."""
    PIXELS: tl.constexpr = LINES * COLUMNS
    parts = tl.cdiv(outputs, OUTPUTS)
    tiles = tl.num_programs(0) // parts
    every = GROUP * parts
    first = tl.program_id(0) // every * GROUP
    size = tl.minimum(tiles - first, GROUP)
    within = tl.program_id(0) % every
    tile, part = first + within % size, within // size
    count = tiles // PHASES
    phase, tile = tile // count, tile % count
    down, right = phase // 2, phase % 2
    across = width // COLUMNS
    each = height // LINES * across
    image, line, column = tile // each, tile % each // across * LINES, tile % across * COLUMNS
    total = tl.zeros([OUTPUTS, PIXELS], tl.float32)
    steps = inputs // INPUTS
    for step in range(SIDE * SIDE * steps):
        tap, at = step // steps, step % steps * INPUTS
        above, left = line - 1 + tap // SIDE + down, column - 1 + tap % SIDE + right
        pixels = x.load([image, above, left, at]).reshape([PIXELS, INPUTS])
        weights = weight.load([phase * outputs + part * OUTPUTS, tap * inputs + at])
        # pixels on the right: on the left, those of several lines would come from registers, where Triton 3.6 lets the
        # next ones be written while a Hopper GPU still reads (its issue 9433)
        total = tl.dot(weights, pixels.T, total)
    total = total.T * scale
    channel = part * OUTPUTS + tl.arange(0, OUTPUTS)
    if BIASED:
        total += tl.load(bias + channel, mask=channel < outputs, other=0).to(tl.float32)[None]
    pixel = tl.arange(0, PIXELS)
    line += pixel // COLUMNS
    column += pixel % COLUMNS
    if PHASES == 4:
        place = (image.to(tl.int64) * 2 * height + 2 * line + down) * 2 * width + 2 * column + right
    else:
        place = (image.to(tl.int64) * height + line) * width + column
    inside = (channel < outputs)[None]
    tl.store(out + place[:, None] * outputs + channel[None], total.to(out.dtype.element_ty), mask=inside)


def is_offered(weight: Tensor) -> bool:
    """Not for numbers of 32 bits, which Triton would shorten, nor on GPUs whose copying engine and cache are smaller
    than Hopper's."""
    if weight.dtype == torch.float32:
        return False
    return weight.device.type != "cuda" or torch.cuda.get_device_capability(weight.device) >= (9, 0)


def fits(height: int, width: int, inputs: int, outputs: int, tile: Tile) -> bool:
    """Is an image a whole number of tiles, and so are the channels?"""
    columns = min(width, tile.pixels)
    lines = tile.pixels // columns
    return not (tile.pixels % columns or width % columns or height % lines or inputs % tile.inputs or outputs % 64)


def convolve(x: Tensor, weight: Tensor, scale: float, dtype: torch.dtype, tile: Tile = FLOAT8) -> Tensor:
    """3 x 3, padded: x [n, C, H, W], channels last; weight [outputs, 9 * C]; what is returned is scaled."""
    return _launched(x, weight, None, scale, dtype, tile, side=3, phases=1)


def convolve_doubled(x: Tensor, weight: Tensor, bias: Tensor, tile: Tile = HALF) -> Tensor:
    """3 x 3, padded, of x in twice the size, each pixel repeated. weight: of `doubled`."""
    return _launched(x, weight, bias, 1.0, x.dtype, tile, side=2, phases=4)


def _launched(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: float,
    dtype: torch.dtype,
    tile: Tile,
    *,
    side: int,
    phases: int,
) -> Tensor:
    assert x.is_contiguous(memory_format=torch.channels_last)
    n, inputs, height, width = x.shape
    outputs = len(weight) // phases
    assert fits(height, width, inputs, outputs, tile)
    columns = min(width, tile.pixels)
    lines = tile.pixels // columns
    step = 2 if phases == 4 else 1
    out = torch.empty((n, step * height, step * width, outputs), dtype=dtype, device=x.device).permute(0, 3, 1, 2)
    pixels = TensorDescriptor.from_tensor(x.permute(0, 2, 3, 1), [1, lines, columns, tile.inputs])
    weights = TensorDescriptor.from_tensor(weight, [tile.outputs, tile.inputs])
    programs = phases * n * (height // lines) * (width // columns) * triton.cdiv(outputs, tile.outputs)
    sizes = (height, width, inputs, outputs, side, phases, lines, columns, tile.outputs, tile.inputs, _GROUP)
    _convolve[(programs,)](
        pixels, weights, bias, out, scale, *sizes, bias is not None, num_stages=tile.stages, num_warps=8
    )
    return out


def flat(weight: Tensor) -> Tensor:
    """[outputs, inputs, 3, 3] as `convolve` reads it."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1).contiguous()


def doubled(weight: Tensor) -> Tensor:
    """[outputs, inputs, 3, 3] -> [4 * outputs, 4 * inputs] as `convolve_doubled` reads it.

    Of three neighbours in an image of twice the size two are the same pixel, left or right: their weights are added.
    Each of the four places that a pixel is repeated in has 2 x 2 weights instead of 3 x 3, and 4/9 of the arithmetic.
    """
    wide = weight.float()
    pairs = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], dtype=torch.float32, device=weight.device)
    summed = torch.einsum("dyr,exs,oirs->deoyxi", pairs, pairs, wide)
    return summed.reshape(4 * len(weight), -1).to(weight.dtype).contiguous()
