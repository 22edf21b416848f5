"""BERT on TensorFlow: `model.pb`, the official frozen graph or one of the same inputs and output."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError

from bench_bert.dataset import Batch
from bench_bert.format_tensorflow import INPUTS, OUTPUT
from bench_bert.formats import provide
from bench_bert.postprocess import full_width
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.serving.batching import finished

DEVICES = {"cpu": "/CPU:0", "cuda": "/GPU:0"}


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on the caller's thread."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have."""
        check_options(options, "model.pb")
        self.options = options

    def load(self) -> None:
        """Read `model.pb` and run it once. Raises InputError naming the file."""
        path = self.options.model / "model.pb"
        provide(path, self.options.extra)
        graph, matrices = read_graph(path, DEVICES[self.options.device])
        self.rows, self.length = _fixed_sizes(graph, path)
        self.session = open_session(graph, self.options)
        self.session.run("fill", matrices)
        one = np.ones((1, 8), np.int64)
        self.predict(Batch(one, one, one, width=self.length or 8))

    def predict(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Answers [n, width, 2]. A graph of fixed sizes gets padded rows, so many at a time as it takes."""
        if self.length is not None:
            batch = batch.padded_to(self.length)
        total, length = batch.input_ids.shape
        step = self.rows or total
        logits = np.empty((total, length, 2), np.float32)
        for first in range(0, total, step):
            part = slice(first, min(first + step, total))
            # np.resize repeats rows to fill a last part that has too few; what they give is cut off
            feed = {f"{name}:0": np.resize(getattr(batch, name)[part], (step, length)) for name in INPUTS}
            logits[part] = self.session.run(f"{OUTPUT}:0", feed)[: part.stop - part.start]
        return full_width(logits[..., 0], logits[..., 1], batch)

    def submit(self, batch: Batch) -> Future[Any]:
        """A finished future of `predict`'s answers. Raises what TensorFlow raises."""
        return finished(self.predict(batch))

    def close(self) -> None:
        """Frees the session."""
        session = self.__dict__.pop("session", None)
        if session is not None:
            session.close()


def check_options(options: BackendOptions, file: str) -> None:
    """Raise InputError for a device or dtype that this backend does not have; file: the name of the graph's."""
    if options.device not in DEVICES:
        raise InputError(f"device {options.device!r}: use {' or '.join(DEVICES)}")
    if options.dtype != "float32":
        raise InputError(f"dtype {options.dtype!r}: {file} is of float32; leave dtype at that, or use backend pytorch")
    if options.device == "cuda" and not tf.config.list_physical_devices("GPU"):
        raise InputError(
            f"device 'cuda': this TensorFlow {tf.__version__} sees no GPU. "
            "Install tensorflow[and-cuda] in place of tensorflow-cpu, or use device cpu"
        )


def open_session(graph: Any, options: BackendOptions) -> Any:
    """A `tf.Session`. TensorFlow keeps the thread count of a process's first session for later ones."""
    settings = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.threads,
        inter_op_parallelism_threads=min(1, options.threads),  # 0 leaves it to TensorFlow
        device_count={} if options.device == "cuda" else {"GPU": 0},
        gpu_options={"allow_growth": True},
    )
    return tf.compat.v1.Session(graph=graph, config=settings)


def read_graph(path: Path, device: str) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
    """The `tf.Graph` of a frozen graph's file, its matrices as variables; and what to feed its operation `fill`.

    As constants TensorFlow would copy all of BERT-large ten times while it optimises: 80 s and 16 GB.
    Raises InputError naming the file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official model.pb there")
    definition, graph = tf.compat.v1.GraphDef(), tf.Graph()
    try:
        definition.ParseFromString(path.read_bytes())
        matrices = dict(_taken_out(definition))
        with graph.as_default(), tf.device(device):
            variables = {f"{name}:0": _variable(name, value.shape) for name, value in matrices.items()}
            tf.import_graph_def(definition, {name: v.value() for name, v in variables.items()}, name="")
            tf.compat.v1.variables_initializer(list(variables.values()), "fill")
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path}: not a frozen TensorFlow graph ({error}). Fetch it again") from error
    starts = (variable.initializer.inputs[1].name for variable in variables.values())
    return graph, dict(zip(starts, matrices.values(), strict=True))


def _taken_out(definition: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """(name, value) of each constant matrix of floats, which is then no longer in the graph's definition."""
    nodes = list(definition.node)
    del definition.node[:]
    for node in nodes:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        if tensor and tensor.dtype == tf.float32.as_datatype_enum and len(tensor.tensor_shape.dim) > 1:
            yield node.name, tf.make_ndarray(tensor)
        else:
            node.attr.pop("_class", None)  # a wish to be placed beside a node that may be gone
            definition.node.append(node)


def _variable(name: str, shape: tuple[int, ...]) -> Any:
    start = tf.compat.v1.zeros_initializer()
    return tf.compat.v1.get_variable(name, shape, tf.float32, start, use_resource=True)


def _fixed_sizes(graph: Any, path: Path) -> tuple[int | None, int | None]:
    """(rows, tokens) that the graph is fixed at; None where it takes any. The official file: (1, 384)."""
    names = {operation.name for operation in graph.get_operations()}
    missing = [f"{name}:0" for name in (*INPUTS, OUTPUT) if name not in names]
    if missing:
        raise InputError(f"{path}: has no tensor {', '.join(missing)}: fetch it again, or use a BERT frozen for SQuAD")
    rows, length = graph.get_tensor_by_name(f"{INPUTS[0]}:0").shape
    return rows, length
