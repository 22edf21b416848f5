"""BERT on ONNX Runtime: the official fp32 or int8 file, or one of the same inputs and outputs."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bench_bert.dataset import Batch
from bench_bert.formats import FAKE_QUANT, provide
from bench_bert.postprocess import full_width
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.serving.batching import finished

OUTPUTS = ["output_start_logits", "output_end_logits"]
FILES = {"float32": "model.onnx", "int8": FAKE_QUANT}
"""dtype -> the official file of it: what a file is written in decides what is computed in."""

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

# The official files name the same three inputs in two ways: the fp32 one first, the int8 one second.
_INPUT_NAMES = {
    "input_ids": "input_ids",
    "input_mask": "input_mask",
    "segment_ids": "segment_ids",
    "attention_mask": "input_mask",
    "token_type_ids": "segment_ids",
}


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on the caller's thread."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have."""
        if options.dtype not in FILES:
            raise InputError(f"dtype {options.dtype!r}: use {' or '.join(FILES)}, or backend pytorch")
        find_provider(options)
        self.options = options

    def load(self) -> None:
        """Read the file of the dtype and run it once. Raises InputError naming the file."""
        path = self.options.model / FILES[self.options.dtype]
        provide(path, self.options.extra)
        self.session, self.device_name = open_session(path, self.options)
        self._check_interface(str(path))
        one = np.ones((1, 8), np.int64)
        self.predict(Batch(one, one, one, width=self.length or 8))

    def _check_interface(self, path: str) -> None:
        inputs = self.session.get_inputs()
        self.inputs = [node.name for node in inputs]
        outputs = [node.name for node in self.session.get_outputs()]
        columns = {_INPUT_NAMES.get(name) for name in self.inputs}
        if columns != set(_INPUT_NAMES.values()) or not set(OUTPUTS) <= set(outputs):
            raise InputError(
                f"{path}: inputs {self.inputs}, outputs {outputs}; expected inputs "
                f"{list(_INPUT_NAMES)[:3]}, outputs {OUTPUTS}: use a BERT exported for SQuAD"
            )
        length = inputs[0].shape[1]
        self.length: int | None = length if isinstance(length, int) else None  # None: takes any

    def predict(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Answers [n, width, 2]; pads first if the model has one fixed length."""
        if self.length is not None:
            batch = batch.padded_to(self.length)
        feed = {name: getattr(batch, _INPUT_NAMES[name]) for name in self.inputs}
        start, end = self.session.run(OUTPUTS, feed)
        return full_width(start, end, batch)

    def submit(self, batch: Batch) -> Future[Any]:
        """A finished future of `predict`'s answers. Raises what ONNX Runtime raises."""
        return finished(self.predict(batch))

    def close(self) -> None:
        """Frees the session."""
        self.__dict__.pop("session", None)


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
