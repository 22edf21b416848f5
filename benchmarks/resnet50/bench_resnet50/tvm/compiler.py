"""Compiles the official ONNX file by TVM, once for a machine: the library is kept beside the model.

Works with apache-tvm 0.27.0.post1 (its wheel has LLVM), onnx 1.23.2 and NumPy 2.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tvm  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx  # type: ignore[import-untyped]
from tvm.support.cc import get_cc  # type: ignore[import-untyped]

from bench_resnet50.config import ResNetConfig
from bench_resnet50.official import CLASSES, INPUT, PROBABILITIES
from bench_resnet50.tvm.schedules import LEVELS, Level, legalisers, scheduled
from loadgen.contracts import InputError
from loadgen.harness.files import whole_file
from loadgen.harness.standins.making import tell

_DIGEST = 32  # bytes of a SHA-256, which stands behind a library: the system's loader passes over it


def load_library(path: Path, config: ResNetConfig) -> tuple[Any, int | None]:
    """(module that a `VirtualMachine` runs, images that its `main` takes at once, None for any number).

    `main`: float32 [n, 3, image, image] -> float32 logits [n, classes + 1], the background first. Compiles unless a
    sound library for this file, this TVM and this processor is kept. Raises InputError naming the file and the tensor.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    model, level = logits_model(path, config), host_level()
    rows = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None
    kept = library_path(path, level, rows)
    if is_sound(kept):
        return tvm.runtime.load_module(str(kept)), rows
    return _compile_and_keep(model, path, kept, level), rows


def library_path(path: Path, level: Level, rows: int | None) -> Path:
    """Where the library is kept: its name tells apart all that it depends on, these two source files too."""
    sources = (Path(__file__), Path(__file__).with_name("schedules.py"))
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in (path, *sources)))
    batch = f"batch-{rows or 'any'}"
    return path.with_name(f"{path.stem}.{digest.hexdigest()[:16]}.tvm-{tvm.__version__}.{batch}.{level.name}.so")


def is_sound(library: Path) -> bool:
    """Whether the file is there and ends with the digest of what comes before: the loader dies of a cut one."""
    data = library.read_bytes() if library.is_file() else b""
    return len(data) > _DIGEST and hashlib.sha256(data[:-_DIGEST]).digest() == data[-_DIGEST:]


def host_level() -> Level:
    """The best level that this machine's processor offers in full."""
    features = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    present = {str(name) for name, is_there in features.items() if is_there}
    return next(level for level in LEVELS if level.features <= present)


def _compile_and_keep(model: onnx.ModelProto, path: Path, kept: Path, level: Level) -> Any:
    tell(f"compiling {path.name} by TVM {tvm.__version__} for {level.name}, once")
    began = time.monotonic()
    try:
        onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True
        )  # names the node, which TVM does not
        executable = compile_model(model, level)
    except Exception as error:  # TVM raises a dozen types without a common base
        raise InputError(f"{path}: TVM {tvm.__version__} cannot compile it ({error}). Fetch it again") from error
    tell(f"  done in {time.monotonic() - began:.0f} s")
    try:
        _keep(executable, kept)
    except OSError as error:
        tell(f"  the library is not kept ({error}): the next run compiles again")
        return executable.jit()
    return tvm.runtime.load_module(str(kept))


def _keep(executable: Any, kept: Path) -> None:
    """Raises OSError if there is no C compiler, with which TVM links, or the folder can't be written to."""
    if get_cc() is None:
        raise OSError("no C compiler to link it by: install gcc or clang")
    with whole_file(kept) as part, tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "model.so"  # the suffix tells TVM what to write
        executable.export_library(str(library))
        data = library.read_bytes()
        part.write_bytes(data + hashlib.sha256(data).digest())


def compile_model(model: onnx.ModelProto, level: Level) -> Any:
    """The executable of `logits_model`'s graph: channels last, what follows a convolution fused with it."""
    target = tvm.target.Target({"kind": "llvm", "mcpu": level.name})
    passes = relax.transform
    channels_last = passes.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]})
    tidy = [passes.CanonicalizeBindings(), passes.DeadCodeElimination()]
    lower = [passes.LegalizeOps(legalisers(level)), passes.AnnotateTIROpPattern(), passes.FuseOps(), passes.FuseTIR()]
    with target:
        module = tvm.transform.Sequential([passes.DecomposeOpsForInference(), channels_last])(from_onnx(model))
        module["main"] = _Folded(module).visit_expr(module["main"])
        module = tvm.transform.Sequential([*tidy, *lower])(module)
        return tvm.compile(scheduled(module, level), target)


_FOLDED: Mapping[str, Callable[..., npt.NDArray[Any]]] = MappingProxyType(
    {
        "relax.add": lambda attrs, x, y: x + y,
        "relax.sqrt": lambda attrs, x: np.sqrt(x),
        "relax.expand_dims": lambda attrs, x: np.expand_dims(x, [int(axis) for axis in attrs.axis]),
        "relax.permute_dims": lambda attrs, x: np.transpose(x, attrs.axes and [int(axis) for axis in attrs.axes]),
    }
)
"""What is done to weights before images come: their layout, and a batch norm's deviation."""


@relax.expr_functor.mutator
class _Folded(relax.PyExprMutator):  # type: ignore[misc]
    """Computes by NumPy what is constant. TVM's own pass compiles a function for each: half a minute in all."""

    def visit_call_(self, op: Any) -> Any:
        call = self.visit_expr_post_order(op)
        fold = _FOLDED.get(getattr(call.op, "name", ""))
        values = [self._value(argument) for argument in call.args] if fold else []
        if not fold or not all(isinstance(value, tvm.ir.GenericConst) for value in values):
            return call
        return relax.const(np.ascontiguousarray(fold(call.attrs, *(value.value.numpy() for value in values))))

    def _value(self, argument: Any) -> Any:
        return self.builder_.lookup_binding(argument) if isinstance(argument, relax.Var) else argument


def logits_model(path: Path, config: ResNetConfig) -> onnx.ModelProto:
    """The model cut off before its softmax, or its ArgMax: the official file has no fixed name for the logits.

    Raises InputError naming the file, and the tensor that is missing or of another shape.
    """
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise InputError(f"{path}: not an ONNX file ({error}). Fetch it again") from error
    graph = model.graph
    constants = {constant.name for constant in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in constants}
    outputs = {value.name: value for value in graph.output}
    ends = ((PROBABILITIES, "Softmax"), (CLASSES, "ArgMax"))
    made = {(name, node.op_type): node for node in graph.node for name in node.output if name in outputs}
    read = [made[end].input[0] for end in ends if end in made]
    if set(inputs) != {INPUT} or not read:
        raise InputError(
            f"{path}: inputs {list(inputs)}, outputs {list(outputs)}; expected input {INPUT}, output {PROBABILITIES}, "
            f"a Softmax, or {CLASSES}, an ArgMax. Fetch it again, or use a ResNet-50 with these names"
        )
    _fix_shape(path, inputs[INPUT], [3, config.image, config.image])
    del graph.input[:], graph.output[:]
    graph.input.append(inputs[INPUT])
    graph.output.append(onnx.helper.make_tensor_value_info(read[0], onnx.TensorProto.FLOAT, [None, None]))
    _prune(graph)
    return model


def _fix_shape(path: Path, value: Any, expected: list[int]) -> None:
    """Write in the sizes after the batch's that the file leaves open. Raises InputError for others than expected."""
    shape = value.type.tensor_type.shape.dim
    found = [size.dim_value or size.dim_param for size in shape]
    if len(shape) != 1 + len(expected) or any(
        size.dim_value not in (0, wanted) for size, wanted in zip(shape[1:], expected, strict=True)
    ):
        raise InputError(f"{path}: tensor {value.name} has shape {found}, expected {['n', *expected]}")
    for size, wanted in zip(shape[1:], expected, strict=True):
        size.dim_value = wanted


def _prune(graph: Any) -> None:
    """Take out the nodes that no output depends on."""
    needed = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):  # a node comes after those whose results it reads
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(nodes)]
    del graph.node[:]
    graph.node.extend(kept)
