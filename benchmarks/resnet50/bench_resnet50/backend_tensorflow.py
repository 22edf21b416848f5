"""ResNet-50 on TensorFlow: `resnet50_v1.pb`, the official frozen graph or one of the same input and output.

Works with tensorflow-cpu 2.21.0 and NumPy 2.
"""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError

from bench_resnet50.config import FILE, ResNetConfig, read_config
from bench_resnet50.dataset import Batch
from bench_resnet50.format_tensorflow import INPUT, PROBABILITIES
from bench_resnet50.formats import BACKGROUND, TENSORFLOW
from bench_resnet50.preprocess import check_variant, normalised
from bench_resnet50.synthetic import provide
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.serving.batching import finished

DEVICES = {"cpu": "/CPU:0", "cuda": "/GPU:0"}


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on the caller's thread."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have, or a profile of other weights."""
        check_variant(options, "tf")
        check_options(options, TENSORFLOW)
        self.options = options

    def load(self) -> None:
        """Read the graph and run it once. Raises InputError naming the file and the tensor."""
        path = self.options.model / TENSORFLOW
        provide(path, self.options.extra)
        config = read_config(self.options.model / FILE)
        graph = read_graph(path, DEVICES[self.options.device])
        self.logits = logits_of(graph, path, config)
        self.rows: int | None = graph.get_tensor_by_name(f"{INPUT}:0").shape[0]  # None: takes any number
        self.session = open_session(graph, self.options)
        self.predict(Batch(np.zeros((1, config.image, config.image, 3), np.uint8)))

    def predict(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Logits [n, classes]. A graph of fixed size gets so many rows at a time, the last ones repeated."""
        images = normalised(batch)
        step = self.rows or len(images)
        parts = []
        for first in range(0, len(images), step):
            part = images[first : first + step]
            # np.resize repeats images to fill a last part that has too few; what they give is cut off
            full = np.resize(part, (step, *part.shape[1:]))
            parts.append(self.session.run(self.logits, {f"{INPUT}:0": full})[: len(part), BACKGROUND:])
        return np.concatenate(parts)

    def submit(self, batch: Batch) -> Future[Any]:
        """A finished future of `predict`'s logits. Raises what TensorFlow raises."""
        return finished(self.predict(batch))

    def close(self) -> None:
        """Frees the session."""
        session = self.__dict__.pop("session", None)
        if session is not None:
            session.close()


# Twin of: benchmarks/bert/bench_bert/backend_tensorflow.py::check_options
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


# Twin of: benchmarks/bert/bench_bert/backend_tensorflow.py::open_session
def open_session(graph: Any, options: BackendOptions) -> Any:
    """A `tf.Session`. TensorFlow keeps the thread count of a process's first session for later ones."""
    settings = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.threads,
        inter_op_parallelism_threads=min(1, options.threads),  # 0 leaves it to TensorFlow
        device_count={} if options.device == "cuda" else {"GPU": 0},
        gpu_options={"allow_growth": True},
    )
    return tf.compat.v1.Session(graph=graph, config=settings)


def read_graph(path: Path, device: str) -> Any:
    """The `tf.Graph` of a frozen graph's file. Raises InputError naming the file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    definition, graph = tf.compat.v1.GraphDef(), tf.Graph()
    try:
        definition.ParseFromString(path.read_bytes())
        with graph.as_default(), tf.device(device):
            tf.import_graph_def(definition, name="")
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path}: not a frozen TensorFlow graph ({error}). Fetch it again") from error
    return graph


def logits_of(graph: Any, path: Path, config: ResNetConfig) -> Any:
    """What goes into the softmax [n, classes + 1]: the official graph has no fixed name for it.

    Raises InputError naming the file, and the tensor that is missing or of another shape.
    """
    operations = {operation.name: operation for operation in graph.get_operations()}
    for name, kind in ((INPUT, "Placeholder"), (PROBABILITIES, "Softmax")):
        if name not in operations or operations[name].type != kind:
            raise InputError(f"{path}: has no {kind} {name}:0: fetch it again, or use a ResNet-50 with these names")
    logits = operations[PROBABILITIES].inputs[0]
    _check_shape(path, f"{INPUT}:0", operations[INPUT].outputs[0].shape, (config.image, config.image, 3))
    _check_shape(path, f"{PROBABILITIES}:0", logits.shape, (config.classes + BACKGROUND,))
    return logits


def _check_shape(path: Path, name: str, shape: Any, expected: tuple[int, ...]) -> None:
    """The first axis, the batch's, may be of any size; so may what the file leaves open."""
    if not shape.is_compatible_with([None, *expected]):
        raise InputError(f"{path}: tensor {name} has shape {shape}, expected {['n', *expected]}: use the official file")
