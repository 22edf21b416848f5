"""A stream of batches through one GPU: pixels are fetched while the batch before them is computed.

Launching kernels one by one takes longer than a small batch. So for some sizes of a batch they are recorded once and
launched as one (CUDA graphs); a batch of another size takes the next larger recording, whose other rows compute what
nobody reads.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from bench_resnet50.batch import NORMALISATIONS, Batch, Pixels
from bench_resnet50.config import ResNetConfig
from bench_resnet50.model import ResNet
from bench_resnet50.pytorch import kernels
from bench_resnet50.pytorch.fused import WIDTH, Fused

_SLOTS = 3
"""Batches that are on the way: one computing, one fetched, one being named."""


class Network(Protocol):
    """A model on a GPU. All methods launch work on the current stream and return."""

    def buffer(self, count: int) -> Tensor:
        """What the model reads, for so many images."""

    def fill(self, buffer: Tensor, images: Tensor, mean: Tensor, scale: Tensor) -> None:
        """Put images [n, H, W, 3] into the first rows of the buffer, normalised: (uint8 - mean) * scale."""

    def __call__(self, buffer: Tensor) -> Tensor:
        """Logits [count, classes]."""


class Compiled:
    """A `Network` of any size and number format: the folded model, compiled by PyTorch."""

    def __init__(self, model: ResNet, image: int) -> None:
        self._model: Any = torch.compile(model)
        self._weight, self._image = model.fc.weight, image

    def buffer(self, count: int) -> Tensor:
        """Zeros [count, 3, H, W], channels last."""
        return self._weight.new_zeros((count, self._image, self._image, 3)).permute(0, 3, 1, 2)

    def fill(self, buffer: Tensor, images: Tensor, mean: Tensor, scale: Tensor) -> None:
        torch.mul(images - mean, scale, out=buffer.permute(0, 2, 3, 1)[: len(images)])

    def __call__(self, buffer: Tensor) -> Tensor:
        logits: Tensor = self._model(buffer)
        return logits


def choose(model: ResNet, config: ResNetConfig) -> Network:
    """The fastest network for a folded model on a GPU."""
    wide = config.width == WIDTH and len(config.layers) > 1
    narrow = model.fc.weight.dtype != torch.float32
    return Fused(model, config.image) if wide and narrow else Compiled(model, config.image)


class Pipeline:
    """One thread calls `submit`; it waits for the GPU only if `_SLOTS` batches are under way."""

    def __init__(self, network: Network, image: int, max_batch: int, device: torch.device) -> None:
        self._network, self._device = network, device
        self._copying: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._computing: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._constants = {name: constants(name, device) for name in NORMALISATIONS}
        self._variant = next(iter(NORMALISATIONS))
        # where recordings read it
        self._normalisation = tuple(constant.clone() for constant in self._constants[self._variant])
        self._locked = PageLocked()
        torch.backends.cudnn.benchmark = True  # tries every algorithm while recording, for each size
        pools = torch.cuda.graph_pool_handle(), torch.cuda.graph_pool_handle()
        self._slots = [_Slot(network, max_batch, image, device) for _ in range(_SLOTS)]
        self._turn = 0
        self._sizes = sizes(max_batch)
        for size in self._sizes:
            for slot in self._slots:
                slot.recordings[size] = self._recorded(slot, size, pools)
        # page-locked memory is slow to get, and kept by PyTorch once it was got: for answers on the way, and being read
        answers = [logits for *_, logits in self._slots[0].recordings.values()] * (_SLOTS + 2)
        _ = [torch.empty_like(logits, device="cpu", pin_memory=True) for logits in answers]
        self._waiting: queue.SimpleQueue[Launched | None] = queue.SimpleQueue()
        self._waiter = threading.Thread(target=self._wait, name="gpu waiter", daemon=True)
        self._waiter.start()

    def _recorded(self, slot: _Slot, size: int, pools: tuple[Any, Any]) -> _Recording:
        """Recordings of the same stream share their memory, as they run one after the other."""
        buffer = slot.buffer[:size]

        def fetch() -> None:
            kernels.fetch(slot.named, slot.pixels)
            self._network.fill(buffer, slot.pixels[:size], *self._normalisation)

        def compute() -> Tensor:
            return self._network(buffer).float()

        fetching, _ = self._graph(fetch, self._copying, pools[0])
        return _Recording(fetching, *self._graph(compute, self._computing, pools[1]))

    def _graph(self, work: Callable[[], Any], stream: Any, pool: Any) -> tuple[Any, Any]:
        """(the recorded work, what it returned)."""
        with torch.cuda.stream(stream):  # outside of the recording: compiles, and chooses algorithms
            for _ in range(2):
                work()
        torch.cuda.synchronize(self._device)
        graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            result = work()
        return graph, result

    def submit(self, batch: Batch) -> Launched:
        """The future of logits [n, classes]. Raises ValueError if the batch is larger than any recording."""
        count = len(batch)
        size = min((size for size in self._sizes if size >= count), default=0)
        if not size:
            raise ValueError(f"a batch of {count} images is larger than the largest of {self._sizes[0]}")
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % _SLOTS
        slot.fetched.synchronize()  # what it names has been read
        slot.name(batch, self._locked)
        fetching, computing, logits = slot.recordings[size]
        with torch.cuda.stream(self._copying):
            self._copying.wait_event(slot.computed)
            self._normalise_as(batch.variant)
            fetching.replay()
            slot.fetched.record()
        with torch.cuda.stream(self._computing):
            self._computing.wait_event(slot.fetched)
            computing.replay()
            slot.computed.record()
            answer = torch.empty((count, logits.shape[1]), pin_memory=True).copy_(logits[:count], non_blocking=True)
            launched = Launched(answer)
        self._waiting.put(launched)
        return launched

    def _normalise_as(self, variant: str) -> None:
        if variant != self._variant:
            self._variant = variant
            for place, constant in zip(self._normalisation, self._constants[variant], strict=True):
                place.copy_(constant)

    def _wait(self) -> None:
        while (launched := self._waiting.get()) is not None:
            launched.finish()

    def close(self) -> None:
        self._waiting.put(None)
        self._waiter.join()
        torch.cuda.synchronize(self._device)
        self._locked.close()


class _Recording(NamedTuple):
    """For one slot and size."""

    fetching: Any
    """Graph: from the host's memory to what the network reads."""
    computing: Any
    """Graph: from there to the logits."""
    logits: Tensor


class _Slot:
    """A batch on its way: where its images lie in the host's memory, and what they become on the GPU."""

    def __init__(self, network: Network, max_batch: int, image: int, device: torch.device) -> None:
        self.named = torch.zeros(2 + max_batch, dtype=torch.int64).pin_memory()
        """See `kernels.fetch`; now it names no image."""
        self.pixels = torch.empty((max_batch, image, image, 3), dtype=torch.uint8, device=device)
        self.buffer = network.buffer(max_batch)
        self.own: Tensor | None = None
        """Images that nobody else keeps until they are fetched."""
        self.recordings: dict[int, _Recording] = {}
        self.fetched: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.computed: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def name(self, batch: Batch, locked: PageLocked) -> None:
        """Write down where the GPU finds the images: it reads them where they lie, no processor copies them."""
        if batch.rows is None:  # another process sent them, each batch in memory of its own
            self.own = torch.from_numpy(batch.images).pin_memory()
            address, rows = self.own.data_ptr(), np.arange(len(batch))
        else:
            address, rows = locked.address(batch.source), batch.rows
        assert address % 16 == 0  # NumPy and PyTorch see to it; the GPU reads 16 bytes at a time
        named = self.named.numpy()
        named[0], named[1], named[2 : 2 + len(rows)] = address, len(rows), rows


class PageLocked:
    """Locks memory into place when it is first asked for, so that GPUs can read it, until it is freed."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.finalize[Any, Any]] = {}

    def address(self, source: Pixels) -> int:
        """Where kernels can read the array from now on. Raises RuntimeError if its memory cannot be locked."""
        address: int = source.ctypes.data
        if address not in self._known and not torch.from_numpy(source).is_pinned():  # another GPU's worker may have
            for_every_gpu = 1
            runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            torch.cuda.check_error(runtime.cudaHostRegister(address, source.nbytes, for_every_gpu))
            self._known[address] = weakref.finalize(source, self._unlock, address)
        return address

    def _unlock(self, address: int) -> None:
        del self._known[address]
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        torch.cuda.check_error(runtime.cudaHostUnregister(address))

    def close(self) -> None:
        """Nothing may be reading any more."""
        for unlock in list(self._known.values()):
            unlock()


class Launched(Future[Any]):
    """Logits that a GPU is computing. The thread that waits for all of them sleeps; who asks for a `result` before it
    is there looks again and again, and has it sooner."""

    def __init__(self, logits: Tensor) -> None:
        """Called on the computing stream, behind all that `logits` needs."""
        super().__init__()
        self._logits = logits
        self._ready: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
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
            while not self._ready.query():
                pass
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
