"""3D U-Net on PyTorch: the official checkpoint, or the weights of the official TorchScript file."""

from __future__ import annotations

import warnings
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench_3d_unet.config import FILE, UNetConfig, check_weights, read_config
from bench_3d_unet.dataset import Batch
from bench_3d_unet.model import UNet
from bench_3d_unet.official import CHECKPOINT, CHECKPOINT_KEY, TORCHSCRIPT
from bench_3d_unet.preprocess import Label
from bench_3d_unet.pytorch.gpu import Pipeline
from bench_3d_unet.sliding_window import F32, at_once, segment
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

GPU_WINDOWS = 8
"""At once: enough to hide what the small levels leave idle."""


class Backend:
    """See `loadgen.contracts.Backend`. A CPU computes in `submit`, a GPU goes on computing after it."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have."""
        self.device, self.dtype = runtime.find_device(options), runtime.dtype_of(options.dtype)
        self.options = options
        self.pipeline: Pipeline | None = None

    @torch.inference_mode()
    def load(self) -> Loaded:
        """Read the weights and run once. Raises InputError naming file and tensor."""
        runtime.set_threads(self.options)
        config = read_config(self.options.model / FILE)
        state = read_state(find_weights(self.options), config)
        with torch.device("meta"):  # no random values are made only to be replaced
            self.model = UNet(config)
        self.model.load_state_dict(state, strict=True, assign=True)
        self.model.eval().requires_grad_(False).to(self.device, self.dtype)
        self.model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.window, self.windows = config.window, at_once(config.window)
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # float32 is float32
            torch.backends.cudnn.benchmark = True  # tries kernels while it warms up
            self.pipeline = Pipeline(self.model, self.window, GPU_WINDOWS, self.device)
        self.submit(Batch([np.zeros([self.window] * 3, np.float32)])).result()
        return runtime.loaded(self.device, self.options.dtype)

    @torch.inference_mode()
    def predict(self, windows: F32) -> F32:
        """Logits [n, 3, W, W, W] in float32 of windows [n, 1, W, W, W], whatever the model computes in."""
        x = torch.from_numpy(windows).to(self.device, self.dtype, memory_format=torch.channels_last_3d)
        logits: F32 = self.model(x).float().cpu().numpy()
        return logits

    def submit(self, batch: Batch) -> Future[list[Label]]:
        """The future of labels [D, H, W] of each volume. Raises what PyTorch raises."""
        if self.pipeline is not None:
            return self.pipeline.submit(batch)
        return finished(segment(batch.volumes, self.predict, self.window, self.windows))

    def close(self) -> None:
        """Frees the weights."""
        if self.pipeline is not None:
            self.pipeline.close()
        self.pipeline = None
        self.__dict__.pop("model", None)
        runtime.release(self.device)


def one_by_one(backend: Backend, batch: Batch) -> list[Label]:
    """What `speed` compares with: as the reference app computes, a single window at a time."""
    return segment(batch.volumes, backend.predict, backend.window, batch=1)


def find_weights(options: BackendOptions) -> Path:
    """The checkpoint; the TorchScript file if that is there alone."""
    script, checkpoint = options.model / TORCHSCRIPT, options.model / CHECKPOINT
    return script if script.is_file() and not checkpoint.is_file() else provide(checkpoint, options)


def read_state(path: Path, config: UNetConfig) -> dict[str, torch.Tensor]:
    """The model's tensors by their official names, on the CPU.

    Raises InputError naming the file, the tensor, its shape and the expected one.
    """
    state = _of_script(path) if path.name == TORCHSCRIPT else _of_checkpoint(path)
    check_weights({name: tuple(value.shape) for name, value in state.items()}, config, str(path))
    return {name: value.contiguous() for name, value in state.items()}


def _of_script(path: Path) -> dict[str, torch.Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch would rather have its newer format
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a TorchScript file ({reason}). Fetch it again") from error
    return dict(module.state_dict())


def _of_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """What training left beside the weights may hold NumPy's numbers, by the names that its versions 1 and 2 have."""
    scalar = np.float64(0).__reduce__()[0]
    names: list[Any] = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    with torch.serialization.safe_globals([np.dtype, *kinds, *names]):
        return runtime.read_state_dict(path, key=CHECKPOINT_KEY)
