"""BERT on ONNX Runtime: the official fp32 or int8 file, or one of the same inputs and outputs."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from bench_bert.config import FILE, read_config
from bench_bert.dataset import Batch
from bench_bert.official import FAKE_QUANT, FAKE_QUANT_INPUTS, INPUTS, ONNX, OUTPUTS
from bench_bert.postprocess import Logits, check_outputs, full_width
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import onnxruntime as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

FILES = {"float32": ONNX, "int8": FAKE_QUANT}
"""dtype -> the official file of it: what a file is written in decides what is computed in."""

ADVICE = f"use the weights and {FILE} of one model, with its vocab.txt"


def _repeated(word: int, length: int) -> Batch:
    """One row of a word as often as this."""
    one = np.ones((1, length), np.int64)
    return Batch(one * word, one, one, width=length)


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
        gives = [node.name for node in self.session.get_outputs()]
        # The reference does not ask for names: the first output is the starts, the second the ends.
        self.outputs = gives if len(gives) == 2 and not set(gives) & set(OUTPUTS) else list(OUTPUTS)
        shapes = runtime.named_interface(self.session, inputs=self.inputs, outputs=self.outputs, path=path)
        self.length = shapes[self.inputs[0]][1]  # None: takes any
        self._check(path, read_config(self.options.model / FILE).vocab_size)
        return runtime.loaded(self.session, self.options, self.options.dtype)

    def _check(self, path: Path, words: int) -> None:
        """Run once with the last of the words, and see that there is no other. Raises InputError naming the file."""
        start, end = self._run(_repeated(words - 1, self.length or 8), path, words)
        check_outputs(path, np.stack([start, end], axis=-1), self.length or 8)
        if self.options.device != "cpu":  # a GPU reads beyond the end of a table, and says nothing
            return
        try:
            self._run(_repeated(words, self.length or 8), path, words)
        except InputError:
            return
        raise InputError(f"{path}: knows more than {words} words: {ADVICE}")

    def _run(self, batch: Batch, path: Path, words: int) -> Any:
        """Starts and ends [n, S]. Raises InputError for a word that is not in the model's table."""
        from onnxruntime import RunOptions
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        quietly = RunOptions()
        quietly.log_severity_level = 4  # the error is told below
        try:
            return self.session.run(self.outputs, dict(zip(self.inputs, batch.columns, strict=True)), quietly)
        except InvalidArgument as error:
            raise InputError(
                f"{path}: does not take word {batch.input_ids[0, 0]} of {words} ({error}): {ADVICE}"
            ) from None

    def predict(self, batch: Batch) -> Logits:
        """Answers [n, width, 2]; pads first if the model has one fixed length."""
        if self.length is not None:
            batch = batch.padded_to(self.length)
        start, end = self.session.run(self.outputs, dict(zip(self.inputs, batch.columns, strict=True)))
        return full_width(start, end, batch)

    def submit(self, batch: Batch) -> Future[Logits]:
        """A finished future of `predict`'s answers. Raises what ONNX Runtime raises."""
        return finished(self.predict(batch))

    def close(self) -> None:
        """Frees the session."""
        self.__dict__.pop("session", None)
