"""ResNet-50 on ONNX Runtime: the official `resnet50_v1.onnx`, or one of the same input and outputs."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bench_resnet50.dataset import Batch
from bench_resnet50.formats import CLASSES, INPUT, ONNX, PROBABILITIES
from bench_resnet50.postprocess import logits_of
from bench_resnet50.preprocess import check_variant, normalised
from bench_resnet50.synthetic import provide
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.serving.batching import finished

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on the caller's thread."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have, or a profile of other weights."""
        check_variant(options, "tf")
        if options.dtype != "float32":
            raise InputError(f"dtype {options.dtype!r}: the file is of float32; leave it, or use backend pytorch")
        find_provider(options)
        self.options = options

    def load(self) -> None:
        """Read the file and run it once. Raises InputError naming the file."""
        path = self.options.model / ONNX
        provide(path, self.options.extra)
        self.session, self.device_name = open_session(path, self.options)
        image = self._check_interface(path)
        self.predict(Batch(np.zeros((1, image, image, 3), np.uint8)))

    def _check_interface(self, path: Path) -> int:
        """Pixels of a side of the model's images."""
        inputs, outputs = self.session.get_inputs(), [node.name for node in self.session.get_outputs()]
        names = [node.name for node in inputs]
        shape = inputs[0].shape if inputs else []
        fits = len(shape) == 4 and shape[1] == 3 and isinstance(shape[2], int) and shape[2] == shape[3]
        if names != [INPUT] or PROBABILITIES not in outputs or not fits:
            raise InputError(
                f"{path}: inputs {names} {shape}, outputs {outputs}; expected input {INPUT!r} [batch, 3, 224, 224], "
                f"outputs {CLASSES!r} and {PROBABILITIES!r}: use the official file"
            )
        self.rows: int | None = shape[0] if isinstance(shape[0], int) else None  # None: takes any number
        return int(shape[2])

    def predict(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Logits [n, classes], but for a constant a row. A model of a fixed batch gets so many images at a time, the
        last of them repeated."""
        images = normalised(batch).transpose(0, 3, 1, 2)
        step = self.rows or len(images)
        parts = [self._run(images[first : first + step], step) for first in range(0, len(images), step)]
        return logits_of(np.concatenate(parts))

    def _run(self, images: npt.NDArray[np.float32], rows: int) -> npt.NDArray[np.float32]:
        fill = np.repeat(images[-1:], rows - len(images), axis=0)
        full = np.ascontiguousarray(np.concatenate([images, fill]) if len(fill) else images)
        probabilities: npt.NDArray[np.float32] = self.session.run([PROBABILITIES], {INPUT: full})[0]
        return probabilities[: len(images)]

    def submit(self, batch: Batch) -> Future[Any]:
        """A finished future of `predict`'s logits. Raises what ONNX Runtime raises."""
        return finished(self.predict(batch))

    def close(self) -> None:
        """Frees the session."""
        self.__dict__.pop("session", None)


# Twin of: benchmarks/bert/bench_bert/backend_onnxruntime.py::find_provider
def find_provider(options: BackendOptions) -> tuple[str, dict[str, str]]:
    """ONNX Runtime's name of the device, and which one of it. Raises InputError for one that is not there."""
    kind, _, number = options.device.partition(":")
    if kind not in PROVIDERS or not (number or "0").isdecimal():
        raise InputError(f"device {options.device!r}: use cpu, cuda or cuda:N")
    if PROVIDERS[kind] not in ort.get_available_providers():
        raise InputError(
            f"device {options.device!r}: this ONNX Runtime {ort.__version__} has none. "
            "Install onnxruntime-gpu in its place, or use device cpu"
        )
    return PROVIDERS[kind], ({"device_id": number} if number else {})


# Twin of: benchmarks/bert/bench_bert/backend_onnxruntime.py::open_session
def open_session(path: Path, options: BackendOptions) -> tuple[ort.InferenceSession, str]:
    """(session, the device for people). Raises InputError naming the file, or a device that does not start."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    provider, which = find_provider(options)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads or options.extra.get("threads", 0)
    try:
        session = ort.InferenceSession(str(path), settings, providers=[(provider, which)])
    except Exception as error:  # the runtime raises a dozen types without a common base
        raise InputError(f"{path}: ONNX Runtime cannot load it ({error}). Fetch it again") from error
    if provider not in session.get_providers():  # the runtime falls back to the CPU in silence
        raise InputError(f"device {options.device!r}: {provider} did not start; use device cpu")
    return session, f"{options.device} ({provider})"
