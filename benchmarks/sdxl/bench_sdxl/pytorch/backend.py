"""SDXL on PyTorch: the official folder, as MLCommons' or Hugging Face has it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from bench_sdxl.dataset import Batch
from bench_sdxl.layout import read_configs, read_tokenizers
from bench_sdxl.pytorch.checkpoint import read_pipeline
from bench_sdxl.pytorch.euler import schedule
from bench_sdxl.pytorch.pipeline import Told
from bench_sdxl.tokenizer import NEGATIVE
from loadgen.contracts import BackendOptions, Loaded
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.serving import finished

Images: TypeAlias = "npt.NDArray[np.uint8]"
_PAINTED = 4
"""Images that the VAE decodes at once: at 1024 x 1024 in bfloat16 each needs about 1 GB of its own."""


class Backend:
    """See `loadgen.contracts.Backend`. A CPU computes in `submit`, a GPU goes on computing after it."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have."""
        self.device = runtime.find_device(options)
        self.options = options

    @torch.inference_mode()
    def load(self) -> Loaded:
        """Read the weights, tell the networks the negative prompt, once for all samples, and make a first batch.

        Raises InputError naming file and tensor.
        """
        runtime.set_threads(self.options)
        configs = read_configs(self.options.model)
        self.pipeline = read_pipeline(self.options, configs, self.device)
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32
        for network in (self.pipeline.unet, self.pipeline.vae):  # convolutions want channels last, on CPUs too
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.schedule = schedule(configs.scheduler)
        rows = [one.row(NEGATIVE, configs.text.max_position_embeddings) for one in read_tokenizers(self.options.model)]
        self.negative_ids = [torch.tensor([row], device=self.device) for row in rows]
        self.negative = self.pipeline.tell(*self.negative_ids)
        self.waiter = ThreadPoolExecutor(1, "gpu-images")  # starts its thread with the first batch of a GPU
        # A GPU's first batch chooses its kernels and takes its memory: here, not while the clock runs.
        size = self.options.max_batch if self.device.type == "cuda" else 1
        ids, ids_2 = (np.repeat(row.cpu().numpy(), size, axis=0) for row in self.negative_ids)
        self.submit(Batch(ids, ids_2, np.zeros(configs.latent_shape, np.float32))).result()
        return runtime.loaded(self.device, self.options.dtype)

    @torch.inference_mode()
    def submit(self, batch: Batch) -> Future[Images]:
        """The future of images uint8 [n, H, W, 3]. Raises what PyTorch raises."""
        if self.device.type == "cpu":
            return finished(self._made(batch, self.negative).numpy())
        with torch.cuda.device(self.device):
            images = self._made(batch, self.negative)
            answers = torch.empty(images.shape, dtype=torch.uint8, pin_memory=True).copy_(images, non_blocking=True)
            ready: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        return self.waiter.submit(_finish, ready, answers)

    def _made(self, batch: Batch, negative: Told) -> torch.Tensor:
        ids, ids_2 = (torch.from_numpy(column).to(self.device) for column in (batch.ids, batch.ids_2))
        prompts = self.pipeline.tell(ids, ids_2)
        latents = self.pipeline.denoise(prompts, negative, torch.from_numpy(batch.latents), self.schedule)
        return torch.cat([self.pipeline.paint(part) for part in torch.split(latents, _PAINTED)])

    def close(self) -> None:
        """Frees the weights."""
        if "waiter" in self.__dict__:
            self.waiter.shutdown()
        for name in ("pipeline", "negative", "negative_ids"):
            self.__dict__.pop(name, None)
        runtime.release(self.device)


def _finish(ready: Any, images: torch.Tensor) -> Images:
    """The images, once the GPU's event says that they have arrived."""
    ready.synchronize()
    return np.asarray(images.numpy())


@torch.inference_mode()
def as_the_reference(backend: Backend, batch: Batch) -> Images:
    """What `speed` compares with: as the reference app computes, which tells the negative prompt with every sample."""
    made = backend._made(batch, backend.pipeline.tell(*backend.negative_ids))
    return np.asarray(made.cpu().numpy())
