"""A stream of batches through one GPU: images are fetched, and detections sorted out, while other batches compute.

What has one shape whatever the images show, from normalisation to each level's best candidates, is recorded once for
some sizes of a batch and launched as one (CUDA graphs); a batch of another size takes the next larger recording. The
suppression of overlapping boxes depends on how many there are, so it follows launch by launch, on a thread and a
stream of its own. Of an image's 31.7 million scores 5,000 leave the recording, and those of detections the GPU.
"""

from __future__ import annotations

import queue
import threading
import weakref
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from bench_retinanet.anchors import level_anchors
from bench_retinanet.config import RetinaNetConfig
from bench_retinanet.dataset import Batch
from bench_retinanet.model import RetinaNet, normalisation, normalised
from bench_retinanet.postprocess import Detections, packed
from bench_retinanet.preprocess import Images
from bench_retinanet.pytorch.detection import Candidates, Selected, candidates, suppressed
from bench_retinanet.pytorch.heads import CANVAS, Canvas

_SLOTS = 3
"""Batches that are on the way: one fetched, one computing, one being sorted out."""


class Network(Protocol):
    """A RetinaNet on its GPU."""

    def select(self, images: Tensor) -> Selected:
        """Candidates of float32 images [n, 3, H, W] of values from 0 to 1. Their number does not depend on what the
        images show."""

    def sort(self, images: Tensor) -> Candidates:
        """The same for any image, at leisure, while others compute."""


class Plain:
    """As the model is written; the shorter way is the only one."""

    def __init__(self, model: RetinaNet, config: RetinaNetConfig) -> None:
        self._model, self._canvas, self._image = model, Canvas(model, config), config.image
        weight = next(model.parameters())
        self._dtype, self._normalisation = weight.dtype, normalisation(weight.device)
        self._anchors = [torch.from_numpy(boxes).to(weight.device) for boxes in level_anchors(config)]

    def select(self, images: Tensor) -> Selected:
        return Selected(self.sort(images), torch.zeros(len(images), dtype=torch.bool, device=images.device))

    def sort(self, images: Tensor) -> Candidates:
        x = normalised(images, self._normalisation).to(self._dtype, memory_format=torch.channels_last)
        features = self._model.features(x)
        levels = self._canvas(features) if len(images) <= CANVAS else self._model.heads(features)
        return candidates(levels, self._anchors, self._image)


def _network(model: RetinaNet, config: RetinaNetConfig, batches: list[int]) -> Network:
    """In 16 bits with our own kernels, which need Triton."""
    dtype = next(model.parameters()).dtype
    if dtype == torch.float32 or config.image % 2:
        return Plain(model, config)
    from bench_retinanet.pytorch.fused import Fused

    return Fused(model, config, batches)


class Pipeline:
    """One thread calls `submit`; it waits only if `_SLOTS` batches are under way."""

    def __init__(self, model: RetinaNet, config: RetinaNetConfig, max_batch: int, device: torch.device) -> None:
        self._device = device
        self._network = _network(model, config, sizes(max_batch))
        self._copying, self._computing, self._sorting = (_stream(device) for _ in range(3))
        self._locked = PageLocked()
        torch.cuda.synchronize(device)  # weights are there before another stream reads them
        torch.backends.cudnn.benchmark = True  # tries every algorithm while recording, for each size
        self._slots = [_Slot(max_batch, config.image, device) for _ in range(_SLOTS)]
        self._sizes = sizes(max_batch)
        pool: Any = torch.cuda.graph_pool_handle()  # recordings of one stream share memory: they follow each other
        for size in reversed(self._sizes):
            for slot in self._slots:
                slot.recordings[size] = self._recorded(slot, size, pool)
        self._turn = 0
        self._waiting: queue.SimpleQueue[_Launched | None] = queue.SimpleQueue()
        self._waiter = threading.Thread(target=self._wait, name="gpu waiter", daemon=True)
        self._waiter.start()

    def _recorded(self, slot: _Slot, size: int, pool: Any) -> _Recording:
        with torch.cuda.stream(self._computing):  # outside of the recording: chooses algorithms
            for _ in range(2):
                kept = [column.clone() for column in self._columns(slot.images[:size])]
        torch.cuda.synchronize(self._device)
        graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=self._computing):
            for place, column in zip(kept, self._columns(slot.images[:size]), strict=True):
                place.copy_(column)  # out of the memory that other recordings use too
        *columns, is_full = kept
        return _Recording(graph, Selected(Candidates(*columns), is_full))

    def _columns(self, images: Tensor) -> list[Tensor]:
        found = self._network.select(images)
        return [*found.candidates, found.is_full]

    def submit(self, batch: Batch) -> Future[Detections]:
        """Raises ValueError if the batch is larger than any recording."""
        size = next((size for size in self._sizes if size >= len(batch)), 0)
        if not size:
            raise ValueError(f"a batch of {len(batch)} images is larger than the largest of {self._sizes[-1]}")
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % _SLOTS
        if slot.last is not None:
            slot.last.exception()  # waits; whoever holds the future learns what it was
        launched = _Launched(slot, slot.recordings[size], len(batch), Future())
        slot.last = launched.future
        with torch.cuda.stream(self._copying):
            self._fetch(batch, slot)
            slot.fetched.record()
        with torch.cuda.stream(self._computing):
            self._computing.wait_event(slot.fetched)
            launched.recording.graph.replay()
            slot.computed.record()
        self._waiting.put(launched)
        return launched.future

    def _fetch(self, batch: Batch, slot: _Slot) -> None:
        """Straight from where the images lie, if they stay there; another process's batch is copied first."""
        rows = range(len(batch)) if batch.rows is None else batch.rows.tolist()
        slot.source = self._locked.tensor(batch.source) if batch.rows is not None else torch.from_numpy(batch.source)
        for place, row in enumerate(rows):
            slot.images[place].copy_(slot.source[row], non_blocking=True)

    @torch.inference_mode()
    def _wait(self) -> None:
        while (launched := self._waiting.get()) is not None:
            try:
                launched.future.set_result(self._sorted_out(launched))
            except Exception as error:  # a kernel's failure arrives here, and belongs to the batch
                launched.future.set_exception(error)

    def _sorted_out(self, launched: _Launched) -> Detections:
        launched.slot.computed.synchronize()
        with torch.cuda.stream(self._sorting):
            kept, images = launched.recording.kept, slice(launched.images)
            found = Candidates(*(column[images] for column in kept.candidates))
            if bool(kept.is_full[images].any()):
                found = self._network.sort(launched.slot.images[images])
            found = suppressed(found)
            return packed(*(column.cpu().numpy() for column in (found.boxes, found.scores, found.labels)))

    def close(self) -> None:
        self._waiting.put(None)
        self._waiter.join()
        torch.cuda.synchronize(self._device)
        self._locked.close()


class _Recording(NamedTuple):
    """For one slot and size."""

    graph: Any
    kept: Selected
    """Where it leaves what it found."""


class _Slot:
    """A batch on its way."""

    def __init__(self, max_batch: int, image: int, device: torch.device) -> None:
        self.images = torch.zeros((max_batch, 3, image, image), device=device)
        self.source: Tensor | None = None
        """In the host's memory, kept until it is fetched."""
        self.recordings: dict[int, _Recording] = {}
        self.last: Future[Detections] | None = None
        self.fetched: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.computed: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]


class _Launched(NamedTuple):
    slot: _Slot
    recording: _Recording
    images: int
    future: Future[Detections]


class PageLocked:
    """Locks memory into place when it is first asked for, so that a GPU copies from it by itself, until it is freed."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.finalize[Any, Any]] = {}

    def tensor(self, source: Images) -> Tensor:
        """The same memory. Raises RuntimeError if it cannot be locked."""
        found = torch.from_numpy(source)
        address = found.data_ptr()
        if address not in self._known and not found.is_pinned():  # another GPU's worker may have
            for_every_gpu = 1
            runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            torch.cuda.check_error(runtime.cudaHostRegister(address, source.nbytes, for_every_gpu))
            self._known[address] = weakref.finalize(source, self._unlock, address)
        return found

    def _unlock(self, address: int) -> None:
        del self._known[address]
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        torch.cuda.check_error(runtime.cudaHostUnregister(address))

    def close(self) -> None:
        """Nothing may be reading any more."""
        for unlock in list(self._known.values()):
            unlock()


def _stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def sizes(max_batch: int) -> list[int]:
    """Which batches are recorded, ascending: powers of two, three quarters of them, and the largest."""
    powers = [1 << power for power in range(max_batch.bit_length() + 1)]
    between = [3 * power // 4 for power in powers if power >= 4]
    return sorted({max_batch, *(size for size in powers + between if size < max_batch)})
