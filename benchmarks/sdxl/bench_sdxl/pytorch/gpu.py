"""Batches of prompts on one GPU. All that makes a batch's images is recorded once and launched as one (CUDA graphs).

Launched one by one, the 22,000 kernels of a single image would take a third longer than they compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench_sdxl.dataset import Batch
from bench_sdxl.pytorch.euler import Schedule
from bench_sdxl.pytorch.fused import fuse
from bench_sdxl.pytorch.pipeline import Pipeline, Told
from bench_sdxl.pytorch.products import Product


class Painter:
    """One thread calls `submit`, which returns while the GPU computes."""

    def __init__(
        self, pipeline: Pipeline, negative_ids: Sequence[Tensor], schedule: Schedule, max_batch: int, *, float8: bool
    ) -> None:
        """Fuses the pipeline's blocks, quantises them if asked to, and records; negative_ids [1, S] of both tokenizers,
        on the GPU."""
        self.pipeline, self.schedule = pipeline, schedule
        self.device = negative_ids[0].device
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32
        torch.backends.cudnn.benchmark = True  # tries every algorithm before the recording
        fuse(pipeline)
        self.negative = pipeline.tell(*negative_ids)
        if float8:
            quantise(pipeline, self.negative, schedule)
        self._waiter = ThreadPoolExecutor(1, "gpu-images")
        self._pool = torch.cuda.graph_pool_handle()  # recordings run one after the other, in the same memory
        self._stream: Any = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(self.device)  # what was made so far is there for another stream
        self._recordings = {size: self._recorded(size, negative_ids) for size in sizes(max_batch)}
        # page-locked memory is slow to get, and kept by PyTorch once it was got: for answers on the way, and being read
        answers = [recording.images for recording in self._recordings.values()] * 3
        _ = [torch.empty(images.shape, dtype=torch.uint8, pin_memory=True) for images in answers]

    def _recorded(self, size: int, ids: Sequence[Tensor]) -> _Recording:
        """Of a batch of this size."""
        short = replace(self.schedule, timesteps=self.schedule.timesteps[-1:], sigmas=self.schedule.sigmas[-2:])
        graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            first, second = (rows.repeat(size, 1) for rows in ids)
            latents = torch.zeros(self.pipeline.configs.latent_shape, device=self.device)
            for _ in range(2):  # outside of the recording: compiles, and chooses algorithms
                self._made(first, second, latents, short)
            self._stream.synchronize()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                images = self._made(first, second, latents, self.schedule)
        return _Recording(graph, first, second, latents, images)

    def _made(self, ids: Tensor, ids_2: Tensor, start: Tensor, schedule: Schedule) -> Tensor:
        latents = self.pipeline.denoise(self.pipeline.tell(ids, ids_2), self.negative, start, schedule)
        # one by one: an image of 1024 x 1024 keeps a GPU busy, and kernels are chosen for one size only
        return torch.cat([self.pipeline.paint(part) for part in torch.split(latents, 1)])

    def submit(self, batch: Batch) -> Future[Any]:
        """The future of images uint8 [n, H, W, 3]. Raises ValueError for a batch larger than the largest."""
        count = len(batch.ids)
        size = min((size for size in self._recordings if size >= count), default=0)
        if not size:
            raise ValueError(f"a batch of {count} prompts is larger than the largest of {max(self._recordings)}")
        recording = self._recordings[size]
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            for place, values in (
                (recording.ids[:count], batch.ids),
                (recording.ids_2[:count], batch.ids_2),
                (recording.latents, batch.latents),
            ):
                place.copy_(torch.from_numpy(values).pin_memory(), non_blocking=True)
            recording.graph.replay()
            images = recording.images[:count]
            answers = torch.empty(images.shape, dtype=torch.uint8, pin_memory=True).copy_(images, non_blocking=True)
            ready: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            ready.record()
        return self._waiter.submit(_finish, ready, answers)

    def close(self) -> None:
        self._waiter.shutdown()
        torch.cuda.synchronize(self.device)


class _Recording(NamedTuple):
    graph: Any
    ids: Tensor
    ids_2: Tensor
    latents: Tensor
    images: Tensor
    """Where the graph writes them, as long as no other recording runs."""


def _finish(ready: Any, images: Tensor) -> Any:
    """The images, once the GPU's event says that they have arrived."""
    ready.synchronize()
    return np.asarray(images.numpy())


def sizes(max_batch: int) -> list[int]:
    """Which batches are recorded, the largest first: others take the next larger one, whose other images nobody reads.

    That is rare where it would matter: with more to do than a GPU can, batches are full.
    """
    return sorted({max_batch, *(1 << power for power in range(max_batch.bit_length()))}, reverse=True)


def quantise(pipeline: Pipeline, told: Told, schedule: Schedule) -> None:
    """Compute most products of the U-Net in float8: for numbers like those that arise while this prompt is drawn."""
    products: list[Product] = pipeline.unet.products  # type: ignore[assignment]
    for product in products:
        product.watch()
    draw = torch.Generator(told.context.device).manual_seed(1)
    start = torch.randn(pipeline.configs.latent_shape, generator=draw, device=told.context.device)
    pipeline.denoise(told, told, start, schedule)
    for product in products:
        product.quantise()
