"""A stream of batches through one GPU: pixels are copied while the batch before them is computed.

For each size of a batch, the powers of two and the largest, all kernels are recorded once and launched as one (CUDA
graphs); a batch of another size takes the next larger recording, whose other rows compute what nobody reads. The
largest has compiled code of its own, single images too; what is between shares code for any size.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench_resnet50.dataset import Batch
from bench_resnet50.model import ResNet, fill, input_buffer
from bench_resnet50.preprocess import NORMALISATIONS

_SLOTS = 3
"""Batches whose pixels are on the way: one computing, one copied, one being filled."""
_COPIERS = 4
"""Threads that collect a batch's pixels: one cannot as fast as an H200 computes."""


class Pipeline:
    """One thread calls `submit`; it waits for the GPU only if `_SLOTS` batches are under way."""

    def __init__(self, model: ResNet, image: int, max_batch: int, device: torch.device, dtype: torch.dtype) -> None:
        self._model: Any = torch.compile(model)
        self._image, self._device, self._dtype = image, device, dtype
        self._copying: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._computing: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._slots = [_Slot(max_batch, image, device) for _ in range(_SLOTS)]
        self._turn = 0
        self._constants = {name: constants(name, device) for name in NORMALISATIONS}
        self._pool = ThreadPoolExecutor(_COPIERS)
        sizes = sorted({max_batch, *(1 << power for power in range(max_batch.bit_length()))}, reverse=True)
        self._recordings = self._recorded(sizes)
        self._waiting: queue.SimpleQueue[Launched | None] = queue.SimpleQueue()
        self._waiter = threading.Thread(target=self._wait, name="gpu waiter", daemon=True)
        self._waiter.start()

    def _recorded(self, sizes: list[int]) -> dict[int, tuple[Any, Tensor, Tensor]]:
        """Size -> (graph, its input, its logits); one after the other they share their memory."""
        torch.backends.cudnn.benchmark = True  # tries every algorithm now, as it does for each new size
        recordings, pool = {}, None
        for size in sizes:
            buffer = input_buffer(size, self._image, self._device, self._dtype)
            with torch.cuda.stream(self._computing):  # outside of the recording: compiles, and chooses algorithms
                for _ in range(2):
                    self._model(buffer)
            torch.cuda.synchronize(self._device)
            graph: Any = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=self._computing):
                logits = self._model(buffer).float()
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
        slot.copied.synchronize()  # what it held has left the host's memory
        self._collect(batch, slot.host[:count].numpy())
        with torch.cuda.stream(self._copying):
            self._copying.wait_event(slot.used)
            slot.device[:count].copy_(slot.host[:count], non_blocking=True)
            slot.copied.record()
        graph, buffer, logits = self._recordings[size]
        with torch.cuda.stream(self._computing):
            self._computing.wait_event(slot.copied)
            fill(buffer, slot.device[:count], *self._constants[batch.variant])
            slot.used.record()
            graph.replay()
            answer = torch.empty((count, logits.shape[1]), pin_memory=True).copy_(logits[:count], non_blocking=True)
            launched = Launched(answer)
        self._waiting.put(launched)
        return launched

    def _collect(self, batch: Batch, target: Any) -> None:
        parts = min(_COPIERS, len(batch))
        cuts = [len(batch) * part // parts for part in range(parts + 1)]
        if parts == 1:
            batch.copy_to(target, 0, 1)
        else:
            list(self._pool.map(lambda part: batch.copy_to(target, cuts[part], cuts[part + 1]), range(parts)))

    def _wait(self) -> None:
        while (launched := self._waiting.get()) is not None:
            launched.finish()

    def close(self) -> None:
        self._waiting.put(None)
        self._waiter.join()
        self._pool.shutdown()
        torch.cuda.synchronize(self._device)


class _Slot:
    """Pixels of a batch, in page-locked memory and on the device."""

    def __init__(self, max_batch: int, image: int, device: torch.device) -> None:
        shape = (max_batch, image, image, 3)
        self.host = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.device = torch.empty(shape, dtype=torch.uint8, device=device)
        self.copied: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
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


def constants(variant: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """(mean, scale) [3] of pixels from 0 to 255."""
    divisor, mean, deviation = NORMALISATIONS[variant]
    scale = 1 / (divisor * np.array(deviation))
    pair = (torch.tensor(values, dtype=torch.float32, device=device) for values in (divisor * np.array(mean), scale))
    return next(pair), next(pair)
