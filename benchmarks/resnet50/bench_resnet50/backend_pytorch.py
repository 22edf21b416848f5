"""ResNet-50 on PyTorch: `resnet50-19c8e357.pth`, torchvision's official state dict."""

from __future__ import annotations

import pickle
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench_resnet50.backend_pytorch_cpu import Network, is_offered
from bench_resnet50.backend_pytorch_gpu import Pipeline, choose
from bench_resnet50.config import FILE, ResNetConfig, read_config
from bench_resnet50.dataset import Batch
from bench_resnet50.formats import PYTORCH, check_weights
from bench_resnet50.model import ResNet, fold
from bench_resnet50.preprocess import check_variant, normalised
from bench_resnet50.synthetic import provide
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.serving.batching import finished

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Backend:
    """See `loadgen.contracts.Backend`. A CPU computes in `submit`, a GPU goes on computing after it."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have, or a profile of
        other weights."""
        check_variant(options, "torch")
        self.device, self.device_name = find_device(options)
        self.options = options

    @torch.inference_mode()
    def load(self) -> None:
        """Read the weights and run once. Raises InputError naming file and tensor."""
        threads = self.options.threads or self.options.extra.get("threads", 0)
        if threads:
            torch.set_num_threads(threads)
        config = read_config(self.options.model / FILE)
        provide(self.options.model / PYTORCH, self.options.extra)
        state = read_state(self.options.model / PYTORCH, config)
        with torch.device("meta"):  # no random values are made only to be replaced
            model = ResNet(config)
        model.load_state_dict(state, strict=False, assign=True)  # all but counters of training steps
        fold(model.eval().requires_grad_(False))
        dtype = DTYPES[self.options.dtype]
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # float32 is float32
            self._place(model, dtype)
            network = choose(model, config)
            self.pipeline = Pipeline(network, config.image, self.options.max_batch, self.device)
        else:
            self._place(model, dtype)
            self.model = Network(model, config.image) if is_offered(dtype) else model
        self.predict(Batch(np.zeros((1, config.image, config.image, 3), np.uint8), rows=np.zeros(1, np.int64)))

    def _place(self, model: ResNet, dtype: torch.dtype) -> None:
        """Channels last is the order in which GPUs and recent CPUs convolve fastest."""
        model.to(self.device, dtype)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def predict(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Logits [n, classes] in float32, whatever the model computes in."""
        logits: npt.NDArray[np.float32] = self.submit(batch).result()
        return logits

    @torch.inference_mode()
    def submit(self, batch: Batch) -> Future[Any]:
        """The future of logits [n, classes]. Raises what PyTorch raises."""
        if self.device.type == "cuda":
            return self.pipeline.submit(batch)
        images = torch.from_numpy(normalised(batch)).permute(0, 3, 1, 2)
        return finished(self.model(images.to(DTYPES[self.options.dtype])).float().numpy())

    def close(self) -> None:
        """Frees the weights."""
        if "pipeline" in self.__dict__:
            self.pipeline.close()
        for name in ("pipeline", "model"):
            self.__dict__.pop(name, None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


# Twin of: benchmarks/bert/bench_bert/backend_pytorch.py::find_device
def find_device(options: BackendOptions) -> tuple[torch.device, str]:
    """(device, its name for people). Raises InputError for a device or dtype that this machine or PyTorch lacks."""
    if options.device.split(":")[0] not in ("cpu", "cuda"):
        raise InputError(f"device {options.device!r}: use cpu, cuda or cuda:N")
    if options.device != "cpu" and not torch.cuda.is_available():
        raise InputError(
            f"device {options.device!r}: PyTorch {torch.__version__} sees no GPU. "
            "Install a CUDA build and a driver, or use device cpu"
        )
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if options.device not in ("cpu", "cuda", *gpus):
        raise InputError(f"device {options.device!r}: use one of cpu, cuda, {', '.join(gpus)}")
    if options.dtype not in DTYPES:
        raise InputError(f"dtype {options.dtype!r}: use one of {', '.join(DTYPES)}")
    device = torch.device(options.device)
    return device, f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu"


# Twin of: benchmarks/bert/bench_bert/backend_pytorch.py::read_tensors
def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A state dict's file, on the CPU. Raises InputError naming the file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a PyTorch state dict ({first}). Fetch it again") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, no dict of tensors. Fetch it again")
    return loaded


def read_state(path: Path, config: ResNetConfig) -> dict[str, torch.Tensor]:
    """The float tensors of torchvision's state dict, on the CPU.

    Raises InputError naming the file, the tensor, its shape and the expected one.
    """
    state = {name: value for name, value in read_tensors(path).items() if not name.endswith("num_batches_tracked")}
    check_weights({name: tuple(value.shape) for name, value in state.items()}, config, str(path))
    return state
