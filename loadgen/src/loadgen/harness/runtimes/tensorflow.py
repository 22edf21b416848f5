"""TensorFlow: devices, frozen graphs and their sessions. Works with 2.21."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes.devices import only_device

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import tensorflow as tf


@dataclass(frozen=True)
class Frozen:
    """A frozen graph, read, with what its variables start from."""

    graph: tf.Graph
    matrices: dict[str, npt.NDArray[np.float32]]
    """Tensor to feed -> value, for the operation `fill`."""


def check_options(options: BackendOptions, file: str, dtypes: Sequence[str] = ("float32",)) -> None:
    """Raise InputError for a device or dtype that this backend does not have. file: the name of the graph's."""
    import tensorflow as tf

    name = only_device(options)
    if options.dtype not in dtypes:
        raise InputError(f"dtype {options.dtype!r}: {file} is of {' or '.join(dtypes)}; leave out --dtype")
    if name == "cpu":
        return
    gpus = [f"cuda:{number}" for number in range(len(tf.config.list_physical_devices("GPU")))]
    if not gpus:
        raise InputError(
            f"device {name!r}: this TensorFlow {tf.__version__} sees no GPU. "
            "Install tensorflow[and-cuda] in place of tensorflow-cpu, or use device cpu"
        )
    if name not in ("cuda", *gpus):
        raise InputError(f"device {name!r}: use one of cpu, cuda, {', '.join(gpus)}")


def read_graph(path: Path, device: str) -> Frozen:
    """A frozen graph's file, its matrices (tensors of two dimensions) as variables, which `open_session` fills.

    As constants TensorFlow would copy all of BERT-large ten times while it optimises: 80 s and 16 GB. Kernels of
    convolutions stay constants: it lays those out once, and a ResNet-50 with variables takes 6 % longer.
    device: as in `BackendOptions`. Raises InputError naming the file.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    definition, graph = tf.compat.v1.GraphDef(), tf.Graph()
    try:
        definition.ParseFromString(path.read_bytes())
        matrices = dict(_taken_out(definition))
        with graph.as_default(), tf.device(_place(device)):
            variables = {f"{name}:0": _variable(name, value.shape) for name, value in matrices.items()}
            tf.import_graph_def(definition, {name: v.value() for name, v in variables.items()}, name="")
            tf.compat.v1.variables_initializer(list(variables.values()), "fill")
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path}: not a frozen TensorFlow graph ({error}). Fetch it again") from error
    starts = (variable.initializer.inputs[1].name for variable in variables.values())
    return Frozen(graph, dict(zip(starts, matrices.values(), strict=True)))


def _place(device: str) -> str:
    kind, _, number = device.partition(":")
    return f"/{'CPU' if kind == 'cpu' else 'GPU'}:{number or 0}"


def _taken_out(definition: Any) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """(name, value) of each constant matrix of floats, which is then no longer in the graph's definition."""
    import tensorflow as tf

    nodes = list(definition.node)
    del definition.node[:]
    for node in nodes:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        if tensor and tensor.dtype == tf.float32.as_datatype_enum and len(tensor.tensor_shape.dim) == 2:
            yield node.name, tf.make_ndarray(tensor)
        else:
            node.attr.pop("_class", None)  # a wish to be placed beside a node that may be gone
            definition.node.append(node)


def _variable(name: str, shape: tuple[int, ...]) -> Any:
    import tensorflow as tf

    start = tf.compat.v1.zeros_initializer()
    return tf.compat.v1.get_variable(name, shape, tf.float32, start, use_resource=True)


def open_session(frozen: Frozen, options: BackendOptions) -> tf.compat.v1.Session:
    """A session of the graph, its variables filled; see `session_of`."""
    session = session_of(frozen.graph, options)
    session.run("fill", frozen.matrices)
    return session


def session_of(graph: tf.Graph, options: BackendOptions) -> tf.compat.v1.Session:
    """A session of a graph.

    Threads: as asked for, else as the profile's model options say, else as TensorFlow chooses; it keeps the count of a
    process's first session for later ones.
    """
    import tensorflow as tf

    threads = options.threads or int(options.extra.get("threads", 0))
    settings = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads,
        inter_op_parallelism_threads=min(1, threads),  # 0 leaves it to TensorFlow
        device_count={"GPU": 0} if options.device == "cpu" else {},
        gpu_options={"allow_growth": True},
    )
    if _normalises(graph):
        rewriting = settings.graph_options.rewrite_options
        rewriting.remapping = rewriting.OFF
    return tf.compat.v1.Session(graph=graph, config=settings)


def _normalises(graph: tf.Graph) -> bool:
    """Does the graph build a normalisation of small operations, as BERT's?

    On a CPU TensorFlow 2.21 remaps a layer normalisation to one kernel, which adds 0.001 to the variance whatever
    the graph says (1e-12 in BERT: logits of the official file are off by up to 14), if the graph counts the axis from
    the front. It is found by its Rsqrt. Other graphs keep the remapping, which joins a convolution with what follows
    it: a ResNet-50 takes 16 % longer without, a BERT-large 3 % (`loadgen/benchmarks/remapping.py` measures both).
    """
    return any(operation.type == "Rsqrt" for operation in graph.get_operations())


def loaded(options: BackendOptions) -> Loaded:
    """What a backend's `load` returns."""
    import tensorflow as tf

    versions = {"tensorflow": tf.__version__}
    if options.device == "cpu":
        return Loaded("cpu", options.dtype, versions)
    number = int(options.device.partition(":")[2] or 0)
    gpu = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[number])
    cuda = tf.sysconfig.get_build_info()["cuda_version"]
    return Loaded(f"{options.device} ({gpu.get('device_name', 'GPU')})", options.dtype, versions | {"cuda": cuda})
