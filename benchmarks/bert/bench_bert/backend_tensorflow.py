"""BERT on TensorFlow: `model.pb`, the official frozen graph or one of the same inputs and output."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from bench_bert.config import FILE, read_config
from bench_bert.dataset import Batch
from bench_bert.official import INPUTS, LOGITS, TENSORFLOW
from bench_bert.postprocess import Logits, check_outputs, full_width
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import tensorflow as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on the caller's thread."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have."""
        runtime.check_options(options, TENSORFLOW)
        self.options = options

    def load(self) -> Loaded:
        """Read `model.pb` and run it once. Raises InputError naming the file."""
        path = provide(self.options.model / TENSORFLOW, self.options)
        frozen = runtime.read_graph(path, self.options.device)
        self.rows, self.length = _fixed_sizes(frozen.graph, path)
        _check_words(frozen.graph, path, read_config(self.options.model / FILE).vocab_size)
        self.session: Any = runtime.open_session(frozen, self.options)
        one = np.ones((1, self.length or 8), np.int64)
        check_outputs(path, self._logits(Batch(one, one, one, width=one.shape[1])), one.shape[1])
        return runtime.loaded(self.options)

    def predict(self, batch: Batch) -> Logits:
        """Answers [n, width, 2]. A graph of fixed sizes gets padded rows, so many at a time as it takes."""
        if self.length is not None:
            batch = batch.padded_to(self.length)
        logits = self._logits(batch)
        return full_width(logits[..., 0], logits[..., 1], batch)

    def _logits(self, batch: Batch) -> Logits:
        """[n, S, 2]."""
        total, length = batch.input_ids.shape
        step = self.rows or total
        parts = []
        for first in range(0, total, step):
            part = slice(first, min(first + step, total))
            # np.resize repeats rows to fill a last part that has too few; what they give is cut off
            full = (np.resize(column[part], (step, length)) for column in batch.columns)
            feed = {f"{name}:0": column for name, column in zip(INPUTS, full, strict=True)}
            parts.append(self.session.run(f"{LOGITS}:0", feed)[: part.stop - part.start])
        logits: Logits = np.concatenate(parts)
        return logits

    def submit(self, batch: Batch) -> Future[Logits]:
        """A finished future of `predict`'s answers. Raises what TensorFlow raises."""
        return finished(self.predict(batch))

    def close(self) -> None:
        """Frees the session."""
        session = self.__dict__.pop("session", None)
        if session is not None:
            session.close()


def _fixed_sizes(graph: Any, path: Path) -> tuple[int | None, int | None]:
    """(rows, tokens) that the graph is fixed at; None where it takes any. The official file: (1, 384)."""
    names = {operation.name for operation in graph.get_operations()}
    missing = [f"{name}:0" for name in (*INPUTS, LOGITS) if name not in names]
    if missing:
        raise InputError(f"{path}: has no tensor {', '.join(missing)}: fetch it again, or use a BERT frozen for SQuAD")
    rows, length = graph.get_tensor_by_name(f"{INPUTS[0]}:0").shape
    return rows, length


def _check_words(graph: Any, path: Path, words: int) -> None:
    """Raise InputError naming the file if its table of words is of another length than the vocabulary."""
    for operation in graph.get_operations():
        if operation.type == "GatherV2" and _source(operation.inputs[1]) == INPUTS[0]:
            rows = operation.inputs[0].shape[0]
            if rows != words:
                raise InputError(
                    f"{path}: knows {rows} words, expected {words}: "
                    f"use the weights and {FILE} of one model, with its vocab.txt"
                )


def _source(tensor: Any) -> str:
    """The name of the operation that a tensor comes from, but for changes of its form."""
    while tensor.op.type in ("Reshape", "ExpandDims", "Squeeze", "Identity", "Cast"):
        tensor = tensor.op.inputs[0]
    return str(tensor.op.name)
