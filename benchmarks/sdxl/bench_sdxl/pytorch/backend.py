"""SDXL on PyTorch: the official folder, as MLCommons' or Hugging Face has it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from bench_sdxl.dataset import Batch
from bench_sdxl.layout import read_configs, read_tokenizers
from bench_sdxl.pytorch.checkpoint import read_pipeline
from bench_sdxl.pytorch.euler import schedule
from bench_sdxl.pytorch.pipeline import Told
from bench_sdxl.tokenizer import NEGATIVE
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.serving import finished

if TYPE_CHECKING:
    from bench_sdxl.pytorch.gpu import Painter

Images: TypeAlias = "npt.NDArray[np.uint8]"
DTYPES = (*runtime.DTYPES, "float8")
"""float8: most products of the U-Net in e4m3, the rest in bfloat16."""

_PAINTED = 4
"""Images that a CPU decodes at once: at 1024 x 1024 in float32 each needs about 2 GB of its own."""


class Backend:
    """See `loadgen.contracts.Backend`. A CPU computes in `submit`, a GPU goes on computing after it."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have."""
        self.device = runtime.find_device(options, DTYPES)
        self.float8 = options.dtype == "float8"
        if self.float8:
            _check_float8(self.device)
        self.options = replace(options, dtype="bfloat16") if self.float8 else options
        self.dtype = options.dtype
        self._painter: Painter | None = None

    @torch.inference_mode()
    def load(self) -> Loaded:
        """Read the weights, tell the networks the negative prompt, once for all samples, and make a first batch.

        Raises InputError naming file and tensor.
        """
        runtime.set_threads(self.options)
        configs = read_configs(self.options.model)
        self.pipeline = read_pipeline(self.options, configs, self.device)
        for network in (self.pipeline.unet, self.pipeline.vae):  # convolutions want channels last, on CPUs too
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.schedule = schedule(configs.scheduler)
        rows = [one.row(NEGATIVE, configs.text.max_position_embeddings) for one in read_tokenizers(self.options.model)]
        self.negative_ids = [torch.tensor([row], device=self.device) for row in rows]
        if self.device.type == "cuda":
            from bench_sdxl.pytorch.gpu import Painter  # needs Triton, which comes with PyTorch's builds for GPUs

            most = self.options.max_batch
            self._painter = Painter(self.pipeline, self.negative_ids, self.schedule, most, float8=self.float8)
        else:
            self.negative = self.pipeline.tell(*self.negative_ids)
        ids, ids_2 = (row.cpu().numpy() for row in self.negative_ids)
        self.submit(Batch(ids, ids_2, np.zeros(configs.latent_shape, np.float32))).result()
        return runtime.loaded(self.device, self.dtype)

    @torch.inference_mode()
    def submit(self, batch: Batch) -> Future[Images]:
        """The future of images uint8 [n, H, W, 3]. Raises what PyTorch raises."""
        if self._painter is not None:
            return self._painter.submit(batch)
        return finished(self._made(batch, self.negative))

    def _made(self, batch: Batch, negative: Told) -> Images:
        ids, ids_2 = (torch.from_numpy(column).to(self.device) for column in (batch.ids, batch.ids_2))
        prompts = self.pipeline.tell(ids, ids_2)
        latents = self.pipeline.denoise(prompts, negative, torch.from_numpy(batch.latents), self.schedule)
        return np.asarray(
            torch.cat([self.pipeline.paint(part).cpu() for part in torch.split(latents, _PAINTED)]).numpy()
        )

    def close(self) -> None:
        """Frees the weights."""
        if self._painter is not None:
            self._painter.close()
        self._painter = None
        for name in ("pipeline", "negative", "negative_ids"):
            self.__dict__.pop(name, None)
        runtime.release(self.device)


def _check_float8(device: torch.device) -> None:
    if device.type == "cpu":
        raise InputError("dtype 'float8': no CPU computes in it: use --device cuda, or bfloat16")
    major, minor = torch.cuda.get_device_capability(device)
    if major < 9:
        raise InputError(f"dtype 'float8': this GPU has capability {major}.{minor}, and 9.0 is needed: use bfloat16")


@torch.inference_mode()
def as_the_reference(backend: Backend, batch: Batch) -> Images:
    """What `speed` compares with: as the reference app computes, which tells the negative prompt with every sample."""
    return backend._made(batch, backend.pipeline.tell(*backend.negative_ids))
