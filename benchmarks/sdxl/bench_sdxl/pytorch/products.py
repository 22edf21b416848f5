"""Matrix products and convolutions whose weights and inputs can be quantised to float8, with sums in float32.

One factor for all of a product's weights and one for all that it reads: numbers of this format have an exponent each,
so that a factor need only keep the largest from being too large.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_sdxl.pytorch import convolution
from bench_sdxl.pytorch.kernels import Form

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of that format."""
ROOM = 4.0
"""How much larger a number may be than any that was seen. Each factor of 2 takes one of the 15 powers of 2 in which
numbers have all their bits."""


class Product:
    """x [m, inputs] -> [m, outputs]."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """weight [outputs, inputs]."""
        self.weight, self.bias, self.dtype = weight, bias, weight.dtype
        self.form = Form(weight.dtype)
        """Of what it reads."""
        self.seen: Tensor | None = None
        """The largest number that it has read, while that is watched."""

    @property
    def can_be_quantised(self) -> bool:
        """GPUs multiply 16 numbers of float8 at a time."""
        return all(size % 16 == 0 for size in self.weight.shape)

    def watch(self) -> None:
        """From now on remember the largest number."""
        self.seen = torch.zeros((), device=self.weight.device)

    def quantise(self) -> None:
        """From now on in float8, for numbers like those that were seen."""
        assert self.seen is not None
        read, largest = self.seen * ROOM / LARGEST, self.weight.abs().amax().float() / LARGEST
        self.scales = read, largest
        self.weight = (self.weight.float() / largest).to(FLOAT8)
        self.form, self.seen = Form(FLOAT8, float(1 / read)), None

    def __call__(self, x: Tensor) -> Tensor:
        if self.form.dtype != FLOAT8:
            self._look(x)
            return F.linear(x, self.weight, self.bias)
        out: Tensor = torch._scaled_mm(
            x,
            self.weight.t(),
            scale_a=self.scales[0],
            scale_b=self.scales[1],
            bias=self.bias,
            out_dtype=self.dtype,
            use_fast_accum=True,
        )
        return out

    def _look(self, x: Tensor) -> None:
        if self.seen is not None:
            self.seen = torch.maximum(self.seen, x.abs().amax().float())


class Convolution(Product):
    """3 x 3, padded, without its bias: x [n, C, H, W], channels last."""

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__(plain.weight)

    @property
    def can_be_quantised(self) -> bool:
        """The fewest channels of SDXL are not worth it."""
        outputs, inputs = self.weight.shape[:2]
        return not (inputs % convolution.FLOAT8.inputs or outputs % convolution.FLOAT8.outputs)

    def quantise(self) -> None:
        super().quantise()
        self.scale = float(self.scales[0] * self.scales[1])
        self.weight = convolution.flat(self.weight)

    def __call__(self, x: Tensor) -> Tensor:
        if self.form.dtype != FLOAT8:
            self._look(x)
            return F.conv2d(x, self.weight, padding=1)
        return convolution.convolve(x, self.weight, self.scale, self.dtype)
