"""ResNet-50 on PyTorch: `resnet50-19c8e357.pth`, torchvision's official state dict."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import torch

from bench_resnet50.batch import Batch, Values, blank, check_variant, normalised
from bench_resnet50.config import FILE, ResNetConfig, check_weights, read_config
from bench_resnet50.model import ResNet, fold
from bench_resnet50.official import PYTORCH
from bench_resnet50.postprocess import check_outputs
from bench_resnet50.pytorch import cpu
from loadgen.contracts import BackendOptions, Loaded
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

if TYPE_CHECKING:
    from bench_resnet50.pytorch.gpu import Pipeline


class Backend:
    """See `loadgen.contracts.Backend`. A CPU computes in `submit`, a GPU goes on computing after it."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have, or a profile of
        other weights."""
        check_variant(options, "torch")
        self._device, self._dtype = runtime.find_device(options), runtime.dtype_of(options.dtype)
        self._options = options
        self._pipeline: Pipeline | None = None
        self._network: Any = None

    @torch.inference_mode()
    def load(self) -> Loaded:
        """Read the weights and run once. Raises InputError naming file and tensor."""
        runtime.set_threads(self._options)
        path = provide(self._options.model / PYTORCH, self._options)
        config = read_config(self._options.model / FILE)
        model = self._model(config)
        if self._device.type == "cuda":
            from bench_resnet50.pytorch import gpu  # needs Triton, which comes with PyTorch's builds for GPUs

            torch.backends.cudnn.allow_tf32 = False  # float32 is float32
            network = gpu.choose(model, config)
            self._pipeline = gpu.Pipeline(network, config.image, self._options.max_batch, self._device)
        else:
            self._network = cpu.Network(model, config.image) if cpu.is_offered(self._dtype) else model
        logits = self.submit(blank(config.image)).result()
        check_outputs(path, logits, config, background=False, softmax=False)
        return runtime.loaded(self._device, self._options.dtype)

    def _model(self, config: ResNetConfig) -> ResNet:
        """Folded, with torchvision's weights; channels last, in which GPUs and recent CPUs convolve fastest."""
        path = self._options.model / PYTORCH
        state = runtime.read_state_dict(path)
        state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        check_weights({name: tuple(value.shape) for name, value in state.items()}, config, str(path))
        with torch.device("meta"):  # no random values are made only to be replaced
            model = ResNet(config)
        model.load_state_dict(state, strict=False, assign=True)  # all but counters of training steps
        fold(model.eval().requires_grad_(False))
        model.to(self._device, self._dtype)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    @torch.inference_mode()
    def submit(self, batch: Batch) -> Future[Values]:
        """The future of logits [n, classes], in float32 whatever the model computes in. Raises what PyTorch raises."""
        if self._pipeline is not None:
            return self._pipeline.submit(batch)
        images = torch.from_numpy(normalised(batch)).permute(0, 3, 1, 2)
        return finished(self._network(images.to(self._dtype)).float().numpy())

    def close(self) -> None:
        """Frees the weights."""
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = self._network = None
        runtime.release(self._device)
