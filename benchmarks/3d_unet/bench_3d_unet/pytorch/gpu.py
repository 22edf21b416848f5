"""The sliding window on a GPU: volumes go there whole, labels come back, and nothing else crosses the bus.

Windows of all volumes of a batch follow each other in groups of a few sizes, each group one recorded launch. Logits
are added on the device in float32, and so is the choice of labels. Volumes are fetched while the batch before computes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from bench_3d_unet.dataset import Batch
from bench_3d_unet.model import UNet
from bench_3d_unet.official import CLASSES
from bench_3d_unet.preprocess import Label
from bench_3d_unet.pytorch import network
from bench_3d_unet.sliding_window import F32, Cut, places, weights
from loadgen.harness.runtimes.cuda import has_matrix_units

Predict: TypeAlias = Callable[[Tensor], Tensor]
"""Windows [n, 1, W, W, W] -> logits [n, 3, W, W, W]."""

_SHAPES = 16
"""Of activations that a group's compiled normalisations may have: a level each, twice for more levels than today."""


class NormReLU(nn.Module):
    """Instance normalisation and ReLU, for activations whose channels come last.

    PyTorch's own instance normalisation first copies such activations into another order. Compiled, this reads them
    twice and writes them once.
    """

    def __init__(self, norm: nn.InstanceNorm3d) -> None:
        super().__init__()
        assert norm.weight is not None
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        variance, mean = torch.var_mean(wide, dim=(2, 3, 4), correction=0, keepdim=True)
        scale = torch.rsqrt(variance + self.eps) * self.weight.float().view(-1, 1, 1, 1)
        return torch.relu((wide - mean) * scale + self.bias.float().view(-1, 1, 1, 1)).to(x.dtype)


def fuse(model: UNet, compiles: bool) -> UNet:
    """The same function with `NormReLU` in the place of each normalisation and its ReLU; changes the model.

    compiles: by PyTorch's compiler, which needs Triton.
    """
    for layer in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        if len(layer) == 3 and isinstance(layer[1], nn.InstanceNorm3d):
            fused = NormReLU(layer[1])
            if compiles:
                fused.compile(dynamic=False)
            layer[1] = fused
            layer[2] = nn.Identity()
    return model


class Recorded:
    """The kernels of a group of `size` windows, launched as one. Without a GPU the model is called instead."""

    def __init__(self, model: Predict, size: int, window: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (size, 1, window, window, window)
        self.windows = torch.zeros(shape, dtype=dtype, device=device).to(memory_format=torch.channels_last_3d)
        self.model = model
        self.graph: Any = None
        if device.type == "cuda":
            stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):  # outside of the recording: compiles, chooses kernels, takes its memory
                model(self.windows)
            torch.cuda.synchronize(device)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.logits: Tensor = model(self.windows).float()

    def replay(self) -> Tensor:
        """Logits float32 [size, 3, W, W, W] of `self.windows`, until the next replay."""
        if self.graph is None:
            self.logits = self.model(self.windows).float()
        else:
            self.graph.replay()
        return self.logits


class Pipeline:
    """Computes batches of volumes in order; the caller goes on while the device computes."""

    def __init__(self, model: UNet, window: int, most: int, device: torch.device) -> None:
        """most: windows of the largest group. Compiles and records, which takes a minute on a GPU."""
        self.window, self.device = window, device
        self.dtype = next(model.parameters()).dtype
        self.weight = torch.from_numpy(weights(window)).to(device)
        with torch.inference_mode(), self._on_device(), _compiling(_SHAPES * most.bit_length(), device):
            predict = self._network(model)
            self.groups = {size: Recorded(predict, size, window, device, self.dtype) for size in _sizes(most)}
        self.copying = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.locked = PageLocked()
        self.waiter = ThreadPoolExecutor(1, "gpu-labels")

    def _network(self, model: UNet) -> Predict:
        """Our own kernels where they fit, which they do for the full model in 16 bits."""
        is_short = self.dtype != torch.float32
        if is_short and has_matrix_units(self.device) and network.fits(model, self.window):
            return network.Network(model, self.window, network.launcher(self.device, self.dtype))
        return fuse(model, compiles=self.device.type == "cuda" and is_short)

    def _on_device(self) -> AbstractContextManager[Any]:
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def submit(self, batch: Batch) -> Future[list[Label]]:
        """The future of labels [D, H, W] of each volume; it raises ValueError for logits that are not finite."""
        with torch.inference_mode(), self._on_device():
            return self._submit(batch)

    def _submit(self, batch: Batch) -> Future[list[Label]]:
        volumes = self._on_the_device(batch.volumes)
        sums = [torch.zeros((len(CLASSES), *v.shape), device=self.device) for v in volumes]
        cuts = [Cut(number, place) for number, v in enumerate(volumes) for place in places(v.shape, self.window)]
        for group in _groups(cuts, list(self.groups)):
            self._add(group, volumes, sums)
        labels = [self._fetched(labels_of(one)) for one in sums]
        finite = torch.stack([torch.isfinite(one).all() for one in sums]).all()
        if self.device.type != "cuda":
            return self.waiter.submit(_finish, None, finite, labels)
        finite = finite.to("cpu", non_blocking=True)
        ready: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record()
        return self.waiter.submit(_finish, ready, finite, labels)

    def _on_the_device(self, volumes: Sequence[F32]) -> list[Tensor]:
        """The computing stream waits for them, and nothing else does."""
        if self.copying is None:
            return [torch.from_numpy(volume) for volume in volumes]
        computing = torch.cuda.current_stream()
        with torch.cuda.stream(self.copying):
            found = [self.locked.tensor(volume).to(self.device, non_blocking=True) for volume in volumes]
        computing.wait_stream(self.copying)
        for volume in found:
            volume.record_stream(computing)
        return found

    def _add(self, group: Sequence[Cut], volumes: Sequence[Tensor], sums: Sequence[Tensor]) -> None:
        recorded = self.groups[len(group)]
        for row, (number, place) in zip(recorded.windows, group, strict=True):
            row[0].copy_(volumes[number][place])
        for logits, (number, place) in zip(recorded.replay(), group, strict=True):
            sums[number][(slice(None), *place)].addcmul_(logits, self.weight)

    def _fetched(self, labels: Tensor) -> Tensor:
        """On its way to the host."""
        if self.device.type != "cuda":
            return labels
        return torch.empty(labels.shape, dtype=torch.uint8, pin_memory=True).copy_(labels, non_blocking=True)

    def close(self) -> None:
        """Waits for what computes, and frees the recordings."""
        self.waiter.shutdown()
        self.groups.clear()
        self.locked.close()


class PageLocked:
    """Locks memory into place when it is first asked for, so that a GPU copies from it by itself, until it is freed."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.finalize[Any, Any]] = {}

    def tensor(self, volume: F32) -> Tensor:
        """The same memory. Only that of a dataset is locked, in which its volumes lie together: another process's batch
        is gone soon. Raises RuntimeError if it cannot be locked."""
        source = volume.base
        if isinstance(source, np.ndarray) and source.ctypes.data not in self._known:
            self._lock(source)
        return torch.from_numpy(volume)

    def _lock(self, source: F32) -> None:
        if torch.from_numpy(source).is_pinned():  # another GPU's worker has done so
            return
        address, for_every_gpu = source.ctypes.data, 1
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        torch.cuda.check_error(runtime.cudaHostRegister(address, source.nbytes, for_every_gpu))
        self._known[address] = weakref.finalize(source, self._unlock, address)

    # Twin of: benchmarks/retinanet/bench_retinanet/pytorch/gpu.py::PageLocked._unlock
    def _unlock(self, address: int) -> None:
        del self._known[address]
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        torch.cuda.check_error(runtime.cudaHostUnregister(address))

    # Twin of: benchmarks/retinanet/bench_retinanet/pytorch/gpu.py::PageLocked.close
    def close(self) -> None:
        """Nothing may be reading any more."""
        for unlock in list(self._known.values()):
            unlock()


def _compiling(shapes: int, device: torch.device) -> AbstractContextManager[Any]:
    """PyTorch compiles a function for 8 shapes, unless told to do so for more, and interprets it for others."""
    if device.type != "cuda":
        return nullcontext()
    from torch._dynamo import config  # takes seconds, so not where only a CPU computes

    patched: AbstractContextManager[Any] = config.patch(recompile_limit=shapes)
    return patched


def labels_of(sums: Tensor) -> Tensor:
    """uint8 [D, H, W] as `sliding_window.labels_of`, which see."""
    background, kidney, tumor = sums
    labels: Tensor = (kidney > background).to(torch.uint8)
    labels.masked_fill_(tumor > torch.maximum(background, kidney), 2)
    return labels


def _finish(ready: Any, finite: Tensor, labels: Sequence[Tensor]) -> list[Label]:
    """Once the device's event says that all has arrived."""
    if ready is not None:
        ready.synchronize()
    if not bool(finite):
        raise ValueError("the model's logits are not all finite")
    return [one.numpy() for one in labels]


def _sizes(most: int) -> list[int]:
    """Of the groups: powers of two, the largest first."""
    return [1 << power for power in reversed(range(most.bit_length()))]


def _groups(cuts: Sequence[Cut], sizes: Sequence[int]) -> Iterator[Sequence[Cut]]:
    """All cuts in order, in as large groups as there are."""
    at = 0
    while at < len(cuts):
        size = next(size for size in sizes if size <= len(cuts) - at)
        yield cuts[at : at + size]
        at += size
