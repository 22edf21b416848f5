"""ONNX Runtime: execution providers, sessions, and what a model's file takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes.devices import only_device

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PROVIDERS: Mapping[str, str] = MappingProxyType({"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"})


def find_provider(options: BackendOptions) -> tuple[str, dict[str, str]]:
    """ONNX Runtime's name of the device, and which one of it. Raises InputError for one that is not there."""
    import onnxruntime

    kind, _, number = only_device(options).partition(":")
    if PROVIDERS[kind] not in onnxruntime.get_available_providers():
        raise InputError(
            f"device {options.device!r}: this ONNX Runtime {onnxruntime.__version__} has none. "
            "Install onnxruntime-gpu in its place, or use device cpu"
        )
    return PROVIDERS[kind], ({"device_id": number} if number else {})


def open_session(path: Path, options: BackendOptions, content: bytes | None = None) -> InferenceSession:
    """Threads: as asked for, else as the profile's model options say, else as ONNX Runtime chooses.

    content: the model in the file's place, where a backend changes it, as by giving out what its last node reads.
    Raises InputError naming the file, or a device that does not start."""
    import onnxruntime

    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    provider, which = find_provider(options)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads or int(options.extra.get("threads", 0))
    try:
        session = onnxruntime.InferenceSession(content or str(path), settings, providers=[(provider, which)])
    except Exception as error:  # the runtime raises a dozen types without a common base
        raise InputError(f"{path}: ONNX Runtime cannot load it ({error}). Fetch it again") from error
    if provider not in session.get_providers():  # the runtime falls back to the CPU in silence
        raise InputError(f"device {options.device!r}: {provider} did not start; use device cpu")
    return session


def read_graph(path: Path) -> Any:
    """A file's graph, for what a session does not tell: the sizes of its weights. Needs onnx.

    None for what cannot be read: `open_session` says why."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError):
        return None


def constant_shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight of a graph, and of every other constant tensor."""
    found = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found |= {name: tuple(value.t.dims) for name, value in zip(node.output, node.attribute, strict=False)}
    return found


def loaded(session: InferenceSession, options: BackendOptions, dtype: str) -> Loaded:
    """What a backend's `load` returns."""
    import onnxruntime

    provider = session.get_providers()[0]
    return Loaded(f"{options.device} ({provider})", dtype, {"onnxruntime": onnxruntime.__version__})


def named_interface(
    session: InferenceSession, *, inputs: Sequence[str], outputs: Sequence[str], path: Path
) -> dict[str, tuple[int | None, ...]]:
    """Input -> its shape, None where the model takes any size.

    Raises InputError naming the file if the model's inputs are not these, in any order, or one of the outputs lacks."""
    nodes, gives = session.get_inputs(), [node.name for node in session.get_outputs()]
    takes = [node.name for node in nodes]
    if set(takes) != set(inputs) or not set(outputs) <= set(gives):
        raise InputError(
            f"{path}: inputs {takes}, outputs {gives}; expected inputs {list(inputs)}, outputs {list(outputs)}: "
            f"use the official {path.name}, or one of the same names"
        )
    return {node.name: tuple(size if isinstance(size, int) else None for size in node.shape) for node in nodes}
