"""A stream of batches through one GPU: pixels are fetched while the batch before them is computed.

For some sizes of a batch all kernels are recorded once and launched as one (CUDA graphs); a batch of another size takes
the next larger recording, whose other rows compute what nobody reads.
"""

from __future__ import annotations

import importlib.util
import queue
import threading
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bench_resnet50.config import ResNetConfig
from bench_resnet50.dataset import Batch
from bench_resnet50.model import ResNet
from bench_resnet50.preprocess import NORMALISATIONS

_SLOTS = 3
"""Batches whose pixels are on the way: one computing, one fetched, one being named."""


class Network(Protocol):
    """A model on a GPU. All methods launch work on the current stream and return."""

    def buffer(self, count: int) -> Tensor:
        """What the model reads, for so many images."""

    def fetch(self, batch: Batch, rows: Tensor, pixels: Tensor) -> None:
        """Bring the batch's images to the GPU, to the first rows of `pixels`. rows: page-locked, for their numbers."""

    def fill(self, buffer: Tensor, images: Tensor, mean: Tensor, scale: Tensor) -> None:
        """Put images [n, H, W, 3] into the first rows of the buffer, normalised: (uint8 - mean) * scale."""

    def __call__(self, buffer: Tensor) -> Tensor:
        """Logits [count, classes]."""

    def close(self) -> None: ...


class Compiled:
    """A `Network` of any size and number format: the folded model, compiled by PyTorch."""

    def __init__(self, model: ResNet, image: int) -> None:
        self._model: Any = torch.compile(model)
        self._weight, self._image = model.fc.weight, image

    def buffer(self, count: int) -> Tensor:
        """Zeros [count, 3, H, W], channels last."""
        return self._weight.new_zeros((count, self._image, self._image, 3)).permute(0, 3, 1, 2)

    def fetch(self, batch: Batch, rows: Tensor, pixels: Tensor) -> None:
        pixels[: len(batch)].copy_(torch.from_numpy(batch.images).pin_memory(), non_blocking=True)

    def fill(self, buffer: Tensor, images: Tensor, mean: Tensor, scale: Tensor) -> None:
        torch.mul(images - mean, scale, out=buffer.permute(0, 2, 3, 1)[: len(images)])

    def __call__(self, buffer: Tensor) -> Tensor:
        logits: Tensor = self._model(buffer)
        return logits

    def close(self) -> None:
        del self._model


def choose(model: ResNet, config: ResNetConfig) -> Network:
    """The fastest network for a folded model on a GPU."""
    wide = config.width == 64 and len(config.layers) > 1
    if wide and model.fc.weight.dtype != torch.float32 and importlib.util.find_spec("triton"):
        from bench_resnet50.backend_pytorch_fused import Fused

        return Fused(model, config.image)
    return Compiled(model, config.image)


class Pipeline:
    """One thread calls `submit`; it waits for the GPU only if `_SLOTS` batches are under way."""

    def __init__(self, network: Network, image: int, max_batch: int, device: torch.device) -> None:
        self._network, self._device = network, device
        self._copying: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._computing: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._slots = [_Slot(max_batch, image, device) for _ in range(_SLOTS)]
        self._turn = 0
        self._constants = {name: constants(name, device) for name in NORMALISATIONS}
        self._recordings = self._recorded(sizes(max_batch))
        # page-locked memory is slow to get, and kept by PyTorch once it was got: for answers on the way, and being read
        answers = [logits for *_, logits in self._recordings.values()] * (_SLOTS + 2)
        _ = [torch.empty_like(logits, device="cpu", pin_memory=True) for logits in answers]
        self._waiting: queue.SimpleQueue[Launched | None] = queue.SimpleQueue()
        self._waiter = threading.Thread(target=self._wait, name="gpu waiter", daemon=True)
        self._waiter.start()

    def _recorded(self, sizes: list[int]) -> dict[int, tuple[Any, Tensor, Tensor]]:
        """Size -> (graph, its input, its logits), from sizes, the largest first; all share their memory."""
        torch.backends.cudnn.benchmark = True  # tries every algorithm now, as it does for each new size
        recordings, pool, largest = {}, None, self._network.buffer(sizes[0])
        for size in sizes:
            buffer = largest[:size]
            with torch.cuda.stream(self._computing):  # outside of the recording: compiles, and chooses algorithms
                for _ in range(2):
                    self._network(buffer)
            torch.cuda.synchronize(self._device)
            graph: Any = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=self._computing):
                logits = self._network(buffer).float()
            pool = pool or graph.pool()
            recordings[size] = graph, buffer, logits
        return recordings

    def submit(self, batch: Batch) -> Launched:
        """The future of logits [n, classes]. Raises ValueError if the batch is larger than any recording."""
        count = len(batch)
        size = min((size for size in self._recordings if size >= count), default=0)
        if not size:
            raise ValueError(f"a batch of {count} images is larger than the largest of {max(self._recordings)}")
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % _SLOTS
        slot.fetched.synchronize()  # the rows that it names have been read
        with torch.cuda.stream(self._copying):
            self._copying.wait_event(slot.used)
            self._network.fetch(batch, slot.rows, slot.pixels)
            slot.fetched.record()
        graph, buffer, logits = self._recordings[size]
        with torch.cuda.stream(self._computing):
            self._computing.wait_event(slot.fetched)
            self._network.fill(buffer, slot.pixels[:count], *self._constants[batch.variant])
            slot.used.record()
            graph.replay()
            answer = torch.empty((count, logits.shape[1]), pin_memory=True).copy_(logits[:count], non_blocking=True)
            launched = Launched(answer)
        self._waiting.put(launched)
        return launched

    def _wait(self) -> None:
        while (launched := self._waiting.get()) is not None:
            launched.finish()

    def close(self) -> None:
        self._waiting.put(None)
        self._waiter.join()
        torch.cuda.synchronize(self._device)
        self._network.close()


class _Slot:
    """A batch's pixels on the device, and which rows of the host's memory they come from."""

    def __init__(self, max_batch: int, image: int, device: torch.device) -> None:
        self.rows = torch.empty(max_batch, dtype=torch.int64, pin_memory=True)
        self.pixels = torch.empty((max_batch, image, image, 3), dtype=torch.uint8, device=device)
        self.fetched: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.used: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]


class Launched(Future[Any]):
    """Logits that a GPU is computing. `result` waits for it without the detour over another thread."""

    def __init__(self, logits: Tensor) -> None:
        """Called on the computing stream, behind all that `logits` needs."""
        super().__init__()
        self._logits = logits
        self._ready: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._ready.record()

    def finish(self) -> None:
        """Wait, and tell those who wait for the future. Called by one thread of the pipeline's own."""
        try:
            self._ready.synchronize()
        except Exception as error:  # a kernel's failure arrives here, and belongs to the batch
            self.set_exception(error)
        else:
            self.set_result(self._logits.numpy())

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self._ready.synchronize()
            return self._logits.numpy()
        return super().result(timeout)


def sizes(max_batch: int) -> list[int]:
    """Which batches are recorded, the largest first: steps of a sixteenth of it, and powers of two below one step.

    In a Server test a batch is what came while another was computed. If it is rounded up by 40 %, as to powers of two,
    it takes so much longer, more come meanwhile, and batches grow until the largest is full.
    """
    step = max(1, max_batch // 16)
    powers = (1 << power for power in range(step.bit_length()))
    return sorted({max_batch, *powers, *range(step, max_batch, step)}, reverse=True)


def constants(variant: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """(mean, scale) [3] of pixels from 0 to 255."""
    divisor, mean, deviation = NORMALISATIONS[variant]
    scale = 1 / (divisor * np.array(deviation))
    pair = (torch.tensor(values, dtype=torch.float32, device=device) for values in (divisor * np.array(mean), scale))
    return next(pair), next(pair)
