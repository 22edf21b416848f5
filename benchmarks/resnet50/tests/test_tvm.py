"""What TVM compiles, keeps and refuses. Logits: see test_backends.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tvm  # type: ignore[import-untyped]
from tvm import relax

from bench_resnet50.batch import Batch, normalised
from bench_resnet50.config import FILE, read_config
from bench_resnet50.official import ONNX
from bench_resnet50.standins.formats import write_onnx
from bench_resnet50.standins.synthetic import random_tensors
from bench_resnet50.tvm import compiler
from bench_resnet50.tvm.schedules import LEVELS, packed
from loadgen.contracts import InputError

Logits = Callable[[Path], Any]


@pytest.fixture
def model(small: Path, load: Callable[..., Any]) -> Path:
    """SMALL's files, with its library."""
    if not list(small.glob("*.so")):
        load("tvm", small)
    return small


@pytest.fixture
def logits(load: Callable[..., Any], small_batch: Batch) -> Logits:
    return lambda model: load("tvm", model, threads=2).submit(small_batch).result()


@pytest.fixture
def expected(small_files: Path, logits: Logits) -> Any:
    return logits(small_files)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one a compilation."""
    counted: list[str] = []
    compile_model = compiler.compile_model

    def count(model: onnx.ModelProto, level: Any) -> Any:
        counted.append(level.name)
        return compile_model(model, level)

    monkeypatch.setattr(compiler, "compile_model", count)
    return counted


def library(folder: Path) -> Path:
    (found,) = folder.glob("*.so")
    return found


def test_a_library_is_used_again(model: Path, logits: Logits, expected: Any, compilations: list[str]) -> None:
    assert np.array_equal(logits(model), expected)
    assert compilations == []


def test_the_name_tells_what_it_was_compiled_for(model: Path) -> None:
    level = compiler.host_level()
    name = library(model).name
    assert name.endswith(f".tvm-{tvm.__version__}.batch-any.{level.name}.so")
    assert compiler.library_path(model / ONNX, level, 8).name.count("batch-8") == 1
    assert level in LEVELS


@pytest.mark.parametrize("content", [b"", b"\x7fELFgarbage" * 100, "cut", "flipped"])
def test_a_damaged_library_is_recognised(content: Any, model: Path) -> None:
    file = library(model)
    assert compiler.is_sound(file)
    damage(file, content)
    assert not compiler.is_sound(file)


def damage(file: Path, content: Any) -> None:
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    file.write_bytes({"cut": whole[:middle], "flipped": flipped}.get(content, content))


def test_a_damaged_library_is_compiled_again(
    model: Path, logits: Logits, expected: Any, compilations: list[str]
) -> None:
    damage(library(model), "cut")
    assert np.abs(logits(model) - expected).max() < 1e-4
    assert len(compilations) == 1
    assert compiler.is_sound(library(model))


def test_another_model_gets_its_own_library(
    model: Path, logits: Logits, expected: Any, compilations: list[str]
) -> None:
    config = read_config(model / FILE)
    write_onnx(model / ONNX, config, random_tensors(config, 2))
    assert np.abs(logits(model) - expected).max() > 0.01
    assert len(compilations) == 1
    assert len(list(model.glob("*.so"))) == 2


def test_without_a_compiler_nothing_is_kept(
    model: Path, logits: Logits, expected: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library(model).unlink()
    monkeypatch.setattr(compiler, "get_cc", lambda: None)
    assert np.abs(logits(model) - expected).max() < 1e-4
    assert not list(model.glob("*.so*"))
    assert "no C compiler" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to(
    model: Path, logits: Logits, expected: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library(model).unlink()

    def refuse(path: Path) -> Any:
        raise PermissionError(f"{path}: read-only")

    monkeypatch.setattr(compiler, "whole_file", refuse)
    assert np.abs(logits(model) - expected).max() < 1e-4
    assert "is not kept" in capsys.readouterr().err


def test_the_loops_for_any_processor(model: Path, small_batch: Batch, expected: Any) -> None:
    """The tests' machine runs those for its own; these have other tiles."""
    executable = compiler.compile_model(compiler.logits_model(model / ONNX, read_config(model / FILE)), LEVELS[-1])
    images = np.ascontiguousarray(normalised(small_batch).transpose(0, 3, 1, 2))
    outputs = relax.VirtualMachine(executable, tvm.cpu())["main"](tvm.runtime.tensor(images)).numpy()
    assert np.abs(outputs[:, 1:] - expected).max() < 1e-4


def test_weights_are_packed_by_outputs() -> None:
    weight = np.arange(2 * 3 * 12, dtype=np.float32).reshape(2, 3, 12)
    groups = packed(weight, 8)
    assert groups.shape == (2, 2, 3, 6)
    assert (groups[1, 0, 2] == weight[0, 2, 6:]).all()


def _unknown_operator(document: onnx.ModelProto) -> None:
    document.graph.node[1].op_type = "Rely"


def _other_shape(document: onnx.ModelProto) -> None:
    bias = next(constant for constant in document.graph.initializer if constant.name == "fc.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.zeros(9, np.float32), "fc.bias"))


@pytest.mark.parametrize(("change", "message"), [(_unknown_operator, "Rely"), (_other_shape, "shape")])
def test_what_cannot_be_compiled_is_told(
    change: Callable[[onnx.ModelProto], None], message: str, model: Path, logits: Logits
) -> None:
    document = onnx.load(model / ONNX)
    change(document)
    onnx.save(document, model / ONNX)
    with pytest.raises(InputError, match=f"(?s)cannot compile it .*{message}") as caught:
        logits(model)
    assert str(model / ONNX) in str(caught.value)
