"""Does a GPU draw the same batch twice alike, and if not, which kernel differs first?

`python speed/twice.py FOLDER float8`: FOLDER holds `model/` and `data/`, as of `synthesize --data FOLDER`. First the
recorded batch, four times in a row. Then one step of it twice without a recording, each kernel's output by its
checksum: the first that differs got the same inputs. Once with memory left as it is, once filled with zeros before the
first time and with NaN before the second (what reads memory that nobody wrote differs then only), and once without
cuDNN's attention.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench_sdxl.dataset import Batch, Dataset
from bench_sdxl.pytorch.backend import Backend
from loadgen.contracts import BackendOptions

BATCH = 8
KERNELS = ("add", "attend", "converted", "gelu_gated", "group_norm", "layer_norm")
"""Of `fused`: those that PyTorch does not see."""


class Noting(TorchDispatchMode):
    """Notes the name and the checksum of whatever is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[str, Tensor]] = []
        self._inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self._inside and "empty" not in str(func):  # which has no value yet
            self.note(str(func), out)
        return out

    def note(self, name: str, out: Any) -> None:
        self._inside = True
        for value in tree_leaves(out):
            if isinstance(value, Tensor) and value.numel():
                self.notes.append((f"{name} {list(value.shape)} {value.dtype}", checksum(value)))
        self._inside = False

    def around(self, name: str, kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A kernel of ours that is noted as one."""

        def noted(*args: Any, **options: Any) -> Tensor:
            out = kernel(*args, **options)
            self.note(name, out)
            return out

        return noted


def checksum(value: Tensor) -> Tensor:
    """int64: of all bits, each weighted by its place, so that an exchange shows too."""
    whole = value.contiguous().flatten().view(torch.uint8).to(torch.int64)
    places = torch.arange(len(whole), device=value.device) % 65_521 + 1
    return (whole * places).sum()


def noted(compute: Callable[[], Any], patched: Sequence[tuple[Any, str]] = ()) -> list[tuple[str, int]]:
    """Everything that is computed meanwhile, in order. patched: modules and the names of kernels in them."""
    with ExitStack() as stack:
        noting = stack.enter_context(Noting())
        for module, name in patched:
            stack.enter_context(patch.object(module, name, noting.around(name, getattr(module, name))))
        compute()
    return [(name, int(sum_)) for name, sum_ in noting.notes]


def first_difference(one: Sequence[tuple[str, int]], other: Sequence[tuple[str, int]]) -> str:
    """What was computed first of all that differs; empty: nothing does."""
    for number, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return f"number {number} of {len(one)}, {left[0]} (the second time {right[0]})"
    return "" if len(one) == len(other) else f"{len(one)} results, the second time {len(other)}"


@contextmanager
def filled(value: float) -> Iterator[None]:
    """PyTorch's free memory, all of it, has this value in the beginning."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0] - (4 << 30)
    parts = [torch.full((1 << 28,), value, device="cuda") for _ in range(free >> 30)]
    torch.cuda.synchronize()
    del parts  # stays PyTorch's: what is allocated next lies there
    yield
    torch.cuda.empty_cache()


def draws(backend: Backend, batch: Batch) -> None:
    """The recorded batch, four times in a row."""
    images = [future.result().astype(np.int16) for future in [backend.submit(batch) for _ in range(4)]]
    for number, (one, other) in enumerate(pairwise(images), 1):
        gap = np.abs(one - other)
        print(f"drawing {number} and {number + 1}: {np.count_nonzero(gap):,} bytes differ, by {gap.max()} at most")


def steps(backend: Backend, batch: Batch, values: tuple[float, float] | None = None) -> str:
    """One step of the U-Net and the decoder of one image, twice."""
    from bench_sdxl.pytorch import convolution, fused

    ids, ids_2, start = (torch.from_numpy(one).to(backend.device) for one in (batch.ids, batch.ids_2, batch.latents))
    pipeline, painter = backend.pipeline, backend._painter
    assert painter is not None
    short = replace(backend.schedule, timesteps=backend.schedule.timesteps[-1:], sigmas=backend.schedule.sigmas[-2:])

    @torch.inference_mode()
    def compute() -> None:
        latents = pipeline.denoise(pipeline.tell(ids, ids_2), painter.negative, start, short)
        pipeline.paint(latents[:1])

    patched = [*((fused, name) for name in KERNELS), (convolution, "convolve"), (convolution, "convolve_doubled")]
    runs = []
    for value in values or (None, None):
        with ExitStack() as stack:
            if value is not None:
                stack.enter_context(filled(value))
            runs.append(noted(compute, patched))
    return first_difference(*runs) or f"nothing differs in {len(runs[0]):,} results"


def main(words: Sequence[str]) -> None:
    folder, dtype = Path(words[0]), words[1]
    backend = Backend(BackendOptions(folder / "model", devices=("cuda:0",), dtype=dtype, max_batch=BATCH))
    backend.load()
    batch = Dataset(folder).gather(np.arange(BATCH))
    print(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {dtype}")
    draws(backend, batch)
    for number in range(3):
        print(f"a step twice, {number + 1}: {steps(backend, batch)}")
    print(f"memory filled with 0, then NaN: {steps(backend, batch, (0.0, float('nan')))}")
    torch.backends.cuda.enable_cudnn_sdp(False)
    for number in range(3):
        print(f"without cuDNN's attention, {number + 1}: {steps(backend, batch)}")
    backend.close()


if __name__ == "__main__":
    main(sys.argv[1:])
