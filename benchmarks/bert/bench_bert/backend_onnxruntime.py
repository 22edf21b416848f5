"""BERT on ONNX Runtime: the official fp32 or int8 file, or one of the same inputs and outputs."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
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


_FORM = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear")
"""Operations that change how numbers are stored or arranged, and not how many words a table has."""


def words_in(path: Path) -> int | None:
    """How many words the table has that a file's graph looks ids up in; None where that is not to be seen."""
    graph = runtime.read_graph(path)
    if graph is None:
        return None
    sources = {name: node for node in graph.node for name in node.output}

    def source(name: str) -> str:
        while name in sources and sources[name].op_type in _FORM:
            name = sources[name].input[0]
        return name

    shapes = runtime.constant_shapes(graph)
    tables = [source(n.input[0]) for n in graph.node if n.op_type == "Gather" and source(n.input[1]) == INPUTS[0]]
    return next((shapes[table][0] for table in tables if len(shapes.get(table, ())) == 2), None)


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
        words = read_config(self.options.model / FILE).vocab_size
        known = words_in(path)
        if known not in (None, words):
            raise InputError(f"{path}: knows {known} words, expected {words}: {ADVICE}")
        self.session: Any = runtime.open_session(path, self.options)
        names = {node.name for node in self.session.get_inputs()}
        self.inputs = FAKE_QUANT_INPUTS if names == set(FAKE_QUANT_INPUTS) else INPUTS
        gives = [node.name for node in self.session.get_outputs()]
        # The reference does not ask for names: the first output is the starts, the second the ends.
        self.outputs = gives if len(gives) == 2 and not set(gives) & set(OUTPUTS) else list(OUTPUTS)
        shapes = runtime.named_interface(self.session, inputs=self.inputs, outputs=self.outputs, path=path)
        self.length = shapes[self.inputs[0]][1]  # None: takes any
        if known is None:
            self._find_end(path, words)
        start, end = self._run(self.session, _repeated(words - 1, self.length or 8))
        check_outputs(path, np.stack([start, end], axis=-1), self.length or 8)
        return runtime.loaded(self.session, self.options, self.options.dtype)

    def _find_end(self, path: Path, words: int) -> None:
        """See by running that the model knows so many words and no more. On a CPU: a GPU reads beyond the end of a
        table, and says nothing. Raises InputError naming the file."""
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        session = self.session
        if self.options.device != "cpu":
            session = runtime.open_session(path, replace(self.options, devices=("cpu",)))
        known = []
        for word in (words - 1, words):
            with suppress(InvalidArgument):
                self._run(session, _repeated(word, self.length or 8))
                known.append(word)
        if known != [words - 1]:
            raise InputError(f"{path}: knows {'more' if known else 'fewer'} than {words} words: {ADVICE}")

    def _run(self, session: Any, batch: Batch) -> Any:
        """Starts and ends [n, S]. Raises InvalidArgument for a word that is not in the model's table."""
        from onnxruntime import RunOptions

        quietly = RunOptions()
        quietly.log_severity_level = 4  # the error is told in our words
        return session.run(self.outputs, dict(zip(self.inputs, batch.columns, strict=True)), quietly)

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
