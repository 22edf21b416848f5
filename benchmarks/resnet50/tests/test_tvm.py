"""What TVM compiles, keeps and refuses. Logits: see test_agreement.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import tvm  # type: ignore[import-untyped]
from tvm import relax

from bench_resnet50 import backend_tvm_compiler
from bench_resnet50.backend_tvm import Backend
from bench_resnet50.backend_tvm_schedules import LEVELS, packed
from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.dataset import Batch
from bench_resnet50.formats import ONNX, random_tensors, write_onnx
from bench_resnet50.model import ResNet
from bench_resnet50.preprocess import normalised
from loadgen.contracts import BackendOptions, InputError

SMALL = ResNetConfig(layers=(1, 1), width=4, classes=6, image=20)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    return random_tensors(SMALL, 1)


@pytest.fixture(scope="module")
def compiled(tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was loaded once. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("model")
    write_config(folder / FILE, SMALL)
    write_onnx(folder / ONNX, SMALL, tensors)
    loaded(folder).close()
    return folder


@pytest.fixture
def model(compiled: Path, tmp_path: Path) -> Path:
    """Its copy, to be changed."""
    for file in compiled.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def batch() -> Batch:
    return Batch(np.random.default_rng(2).integers(0, 256, (5, 20, 20, 3)).astype(np.uint8), "torch")


@pytest.fixture(scope="module")
def expected(tensors: dict[str, Any], batch: Batch) -> Any:
    """Logits of PyTorch's model."""
    net = ResNet(SMALL).eval()
    net.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()}, strict=False)
    with torch.inference_mode():
        logits = net(torch.from_numpy(normalised(batch).transpose(0, 3, 1, 2).copy())).numpy()
    assert np.abs(logits).max() > 0.1, "large enough for the tolerance to mean something"
    return logits


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one a compilation."""
    counted: list[str] = []
    compile_model = backend_tvm_compiler.compile_model

    def count(model: onnx.ModelProto, level: Any) -> Any:
        counted.append(level.name)
        return compile_model(model, level)

    monkeypatch.setattr(backend_tvm_compiler, "compile_model", count)
    return counted


def loaded(folder: Path, threads: int = 2, **options: Any) -> Backend:
    backend = Backend(BackendOptions(folder, threads=threads, **options))
    backend.load()
    return backend


def library(folder: Path) -> Path:
    (found,) = folder.glob("*.so")
    return found


def test_a_library_is_used_again(model: Path, batch: Batch, expected: Any, compilations: list[str]) -> None:
    logits = loaded(model).submit(batch).result()
    assert compilations == []
    assert logits.shape == (5, 6)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 1e-4


def test_the_name_tells_what_it_was_compiled_for(model: Path) -> None:
    level = backend_tvm_compiler.host_level()
    name = library(model).name
    assert name.endswith(f".tvm-{tvm.__version__}.batch-any.{level.name}.so")
    assert backend_tvm_compiler.library_path(model / ONNX, level, 8).name.count("batch-8") == 1
    assert level in LEVELS


@pytest.mark.parametrize("content", [b"", b"\x7fELFgarbage" * 100, "cut", "flipped"])
def test_a_damaged_library_is_recognised(content: Any, model: Path) -> None:
    file = library(model)
    assert backend_tvm_compiler.is_sound(file)
    damage(file, content)
    assert not backend_tvm_compiler.is_sound(file)


def damage(file: Path, content: Any) -> None:
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    file.write_bytes({"cut": whole[:middle], "flipped": flipped}.get(content, content))


def test_a_damaged_library_is_compiled_again(model: Path, batch: Batch, expected: Any, compilations: list[str]) -> None:
    damage(library(model), "cut")
    assert np.abs(loaded(model).predict(batch) - expected).max() < 1e-4
    assert len(compilations) == 1
    assert backend_tvm_compiler.is_sound(library(model))


def test_another_model_gets_another_library(model: Path, batch: Batch, expected: Any, compilations: list[str]) -> None:
    write_onnx(model / ONNX, SMALL, random_tensors(SMALL, 2))
    assert np.abs(loaded(model).predict(batch) - expected).max() > 0.01
    assert len(compilations) == 1
    assert len(list(model.glob("*.so"))) == 2


def test_without_a_compiler_nothing_is_kept(
    model: Path, batch: Batch, expected: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library(model).unlink()
    monkeypatch.setattr(backend_tvm_compiler, "get_cc", lambda: None)
    assert np.abs(loaded(model).predict(batch) - expected).max() < 1e-4
    assert not list(model.glob("*.so*"))
    assert "no C compiler" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to(
    model: Path, batch: Batch, expected: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library(model).unlink()

    def refuse(path: Path) -> Any:
        raise PermissionError(f"{path}: read-only")

    monkeypatch.setattr(backend_tvm_compiler, "whole_file", refuse)
    assert np.abs(loaded(model).predict(batch) - expected).max() < 1e-4
    assert "is not kept" in capsys.readouterr().err


@pytest.mark.parametrize("rows", [1, 2])
def test_a_model_of_fixed_batch_size(
    rows: int, model: Path, tensors: dict[str, Any], batch: Batch, expected: Any
) -> None:
    write_onnx(model / ONNX, SMALL, tensors, batch=rows)
    backend = loaded(model)
    assert backend.rows == rows
    assert np.abs(backend.predict(batch) - expected).max() < 1e-4


def test_the_loops_for_any_processor(model: Path, batch: Batch, expected: Any) -> None:
    """The tests' machine runs those for its own; these have other tiles."""
    executable = backend_tvm_compiler.compile_model(backend_tvm_compiler.logits_model(model / ONNX, SMALL), LEVELS[-1])
    images = np.ascontiguousarray(normalised(batch).transpose(0, 3, 1, 2))
    logits = relax.VirtualMachine(executable, tvm.cpu())["main"](tvm.runtime.tensor(images)).numpy()
    assert np.abs(logits[:, 1:] - expected).max() < 1e-4


def test_weights_are_packed_by_outputs() -> None:
    weight = np.arange(2 * 3 * 12, dtype=np.float32).reshape(2, 3, 12)
    groups = packed(weight, 8)
    assert groups.shape == (2, 2, 3, 6)
    assert (groups[1, 0, 2] == weight[0, 2, 6:]).all()


@pytest.mark.parametrize("content", [None, b"", b"\x00\x01garbage" * 100, "cut"])
def test_a_file_missing_or_damaged(content: Any, model: Path) -> None:
    whole = (model / ONNX).read_bytes()
    (model / ONNX).unlink()
    if content is not None:
        (model / ONNX).write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    with pytest.raises(InputError, match="no such file" if content is None else "etch it again") as caught:
        loaded(model)
    assert str(model / ONNX) in str(caught.value)


def _rename_input(document: onnx.ModelProto) -> None:
    document.graph.input[0].name = document.graph.node[0].input[0] = "data"


def _rename_output(document: onnx.ModelProto) -> None:
    document.graph.output[1].name = document.graph.node[-1].output[0] = "prob"


def _other_operator(document: onnx.ModelProto) -> None:
    document.graph.node[-1].op_type = "Sigmoid"


def _unknown_operator(document: onnx.ModelProto) -> None:
    document.graph.node[1].op_type = "Rely"


def _other_shape(document: onnx.ModelProto) -> None:
    bias = next(constant for constant in document.graph.initializer if constant.name == "fc.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.zeros(9, np.float32), "fc.bias"))


def _foreign_shape(document: onnx.ModelProto) -> None:
    """Under a name that is not torchvision's."""
    _other_shape(document)
    for constant in document.graph.initializer:
        constant.name = constant.name.replace("fc.bias", "dense/bias")
    for node in document.graph.node:
        node.input[:] = [name.replace("fc.bias", "dense/bias") for name in node.input]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rename_input, r"inputs \['data'\].* expected input input_tensor:0"),
        (_rename_output, r"outputs \['ArgMax:0', 'prob'\]; expected .*softmax_tensor:0"),
        (_other_operator, "softmax_tensor:0, a Softmax"),
        (_unknown_operator, "cannot compile it .*Rely"),
        (_other_shape, r"tensor fc.bias has shape \[9\], expected \[7\]"),
        (_foreign_shape, "cannot compile it"),
    ],
)
def test_another_graph_is_told(change: Callable[[onnx.ModelProto], None], message: str, model: Path) -> None:
    document = onnx.load(model / ONNX)
    change(document)
    onnx.save(document, model / ONNX)
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        loaded(model)
    assert str(model / ONNX) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 7}, r"tensor softmax_tensor:0 has shape \['batch', 7\], expected \['n', 8\]"),
        ({"image": 24}, r"tensor input_tensor:0 has shape \['batch', 3, 20, 20\], expected \['n', 3, 24, 24\]"),
    ],
)
def test_other_sizes_are_told(change: dict[str, int], message: str, model: Path) -> None:
    write_config(model / FILE, replace(SMALL, **change))
    with pytest.raises(InputError, match=message):
        loaded(model)


def test_what_the_backend_has_not_is_an_error(model: Path) -> None:
    with pytest.raises(InputError, match="device 'cuda': this backend runs on cpu"):
        loaded(model, device="cuda")
    with pytest.raises(InputError, match="dtype 'int8'"):
        loaded(model, dtype="int8")
    with pytest.raises(InputError, match="use --profile"):
        loaded(model, extra={"variant": "torch"})
