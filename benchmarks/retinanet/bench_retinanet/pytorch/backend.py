"""RetinaNet on PyTorch: `retinanet_model_10.pth`, the official state dict, or the official pickled module."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

import torch

from bench_retinanet.anchors import level_anchors
from bench_retinanet.config import FILE, RetinaNetConfig, check_weights, read_config
from bench_retinanet.dataset import Batch
from bench_retinanet.model import RetinaNet, fold, normalisation, normalised
from bench_retinanet.official import PICKLED, PYTORCH
from bench_retinanet.postprocess import Detections, packed
from bench_retinanet.pytorch.checkpoint import read_weights
from bench_retinanet.pytorch.detection import detect
from loadgen.contracts import BackendOptions, Loaded
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

if TYPE_CHECKING:
    from bench_retinanet.pytorch.gpu import Pipeline


class Backend:
    """See `loadgen.contracts.Backend`. A CPU computes in `submit`, a GPU goes on computing after it."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have."""
        self._device, self._dtype = runtime.find_device(options), runtime.dtype_of(options.dtype)
        self._options = options
        self._pipeline: Pipeline | None = None
        self._model: RetinaNet | None = None

    @torch.inference_mode()
    def load(self) -> Loaded:
        """Read the weights and run once. Raises InputError naming file and tensor."""
        runtime.set_threads(self._options)
        config = read_config(self._options.model / FILE)
        model = self._read(config)
        if self._device.type == "cuda":
            from bench_retinanet.pytorch.gpu import Pipeline

            torch.backends.cudnn.allow_tf32 = False  # float32 is float32
            self._pipeline = Pipeline(model, config, self._options.max_batch, self._device)
        self._model, self._image = model, config.image
        self._anchors = [torch.from_numpy(boxes) for boxes in level_anchors(config)]
        self._normalisation = normalisation(torch.device("cpu"))
        self.submit(Batch(torch.zeros((1, 3, config.image, config.image)).numpy())).result()
        return runtime.loaded(self._device, self._options.dtype)

    def _read(self, config: RetinaNetConfig) -> RetinaNet:
        """Folded, channels last, in which GPUs and recent CPUs convolve fastest."""
        path, other = (self._options.model / name for name in (PYTORCH, PICKLED))
        if not path.is_file() and other.is_file():
            path = other
        state = read_weights(provide(path, self._options))
        check_weights({name: tuple(value.shape) for name, value in state.items()}, config, str(path))
        with torch.device("meta"):  # no random values are made only to be replaced
            model = RetinaNet(config)
        model.load_state_dict(state, strict=False, assign=True)  # all but counters of training steps
        fold(model.eval().requires_grad_(False))
        model.to(self._device, self._dtype)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    @torch.inference_mode()
    def submit(self, batch: Batch) -> Future[Detections]:
        """The future of detections. Raises what PyTorch raises."""
        if self._pipeline is not None:
            return self._pipeline.submit(batch)
        assert self._model is not None
        images = normalised(torch.from_numpy(batch.images), self._normalisation)
        x = images.to(self._dtype, memory_format=torch.channels_last)
        found = detect(self._model.heads(self._model.features(x)), self._anchors, self._image)
        return finished(packed(*(column.numpy() for column in (found.boxes, found.scores, found.labels))))

    def close(self) -> None:
        """Frees the weights."""
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = self._model = None
        runtime.release(self._device)
