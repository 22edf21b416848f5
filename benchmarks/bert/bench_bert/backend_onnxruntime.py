"""BERT on ONNX Runtime: the official fp32 or int8 file, or one of the same inputs and outputs."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np

from bench_bert.dataset import Batch
from bench_bert.official import FAKE_QUANT, FAKE_QUANT_INPUTS, INPUTS, ONNX, OUTPUTS
from bench_bert.postprocess import Logits, full_width
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import onnxruntime as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

FILES = {"float32": ONNX, "int8": FAKE_QUANT}
"""dtype -> the official file of it: what a file is written in decides what is computed in."""


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on the caller's thread."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have."""
        if options.dtype not in FILES:
            raise InputError(f"dtype {options.dtype!r}: use {' or '.join(FILES)}, or backend pytorch")
        runtime.find_provider(options)
        self.options = options

    def load(self) -> Loaded:
        """Read the file of the dtype and run it once. Raises InputError naming the file."""
        path = provide(self.options.model / FILES[self.options.dtype], self.options)
        self.session: Any = runtime.open_session(path, self.options)
        names = {node.name for node in self.session.get_inputs()}
        self.inputs = FAKE_QUANT_INPUTS if names == set(FAKE_QUANT_INPUTS) else INPUTS
        shapes = runtime.named_interface(self.session, inputs=self.inputs, outputs=OUTPUTS, path=path)
        self.length = shapes[self.inputs[0]][1]  # None: takes any
        one = np.ones((1, 8), np.int64)
        self.predict(Batch(one, one, one, width=self.length or 8))
        return runtime.loaded(self.session, self.options, self.options.dtype)

    def predict(self, batch: Batch) -> Logits:
        """Answers [n, width, 2]; pads first if the model has one fixed length."""
        if self.length is not None:
            batch = batch.padded_to(self.length)
        start, end = self.session.run(OUTPUTS, dict(zip(self.inputs, batch.columns, strict=True)))
        return full_width(start, end, batch)

    def submit(self, batch: Batch) -> Future[Logits]:
        """A finished future of `predict`'s answers. Raises what ONNX Runtime raises."""
        return finished(self.predict(batch))

    def close(self) -> None:
        """Frees the session."""
        self.__dict__.pop("session", None)
