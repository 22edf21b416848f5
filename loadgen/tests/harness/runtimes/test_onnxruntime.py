"""The room of ONNX Runtime. Runs where ONNX Runtime is: in a benchmark's test session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.runtimes import onnxruntime as room

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


def options(*devices: str, **rest: Any) -> BackendOptions:
    return BackendOptions(Path("model"), devices=devices or ("cpu",), **rest)


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    """A model of x [any, 3] -> y."""
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["n", 3]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    document = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(document, tmp_path / "relu.onnx")
    return tmp_path / "relu.onnx"


def test_a_session_is_opened_and_told(relu: Path) -> None:
    session = room.open_session(relu, options())
    assert session.run(["y"], {"x": np.full((1, 3), -1, np.float32)})[0].tolist() == [[0, 0, 0]]
    told = room.loaded(session, options(), "float32")
    assert (told.device, told.dtype) == ("cpu (CPUExecutionProvider)", "float32")
    assert dict(told.versions) == {"onnxruntime": ort.__version__}


@pytest.mark.parametrize(("threads", "extra", "expected"), [(3, {"threads": 2}, 3), (0, {"threads": 2}, 2), (0, {}, 0)])
def test_threads(threads: int, extra: dict[str, int], expected: int, relu: Path) -> None:
    session = room.open_session(relu, options(threads=threads, extra=extra))
    assert session.get_session_options().intra_op_num_threads == expected


def test_names_and_shapes(relu: Path) -> None:
    session = room.open_session(relu, options())
    assert room.named_interface(session, inputs=["x"], outputs=["y"], path=relu) == {"x": (None, 3)}
    for inputs, outputs in ((["x", "z"], ["y"]), (["z"], ["y"]), (["x"], ["z"])):
        with pytest.raises(InputError, match=r"relu.onnx: inputs \['x'\], outputs \['y'\]; expected inputs \['"):
            room.named_interface(session, inputs=inputs, outputs=outputs, path=relu)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (options("tpu"), "device 'tpu': use cpu, cuda or cuda:N"),
        (options("cuda:0"), "device 'cuda:0': this ONNX Runtime .* has none. .*use device cpu"),
        (options("cpu", "cpu"), "devices cpu, cpu: this backend computes on one device"),
    ],
)
def test_what_is_not_there_is_an_error(asked: BackendOptions, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=message):
        room.find_provider(asked)


def test_a_gpu_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(room.PROVIDERS.values()))
    assert room.find_provider(options("cuda:1")) == ("CUDAExecutionProvider", {"device_id": "1"})
    assert room.find_provider(options("cuda")) == ("CUDAExecutionProvider", {})


def test_a_gpu_that_does_not_start_is_an_error(relu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime would go on with the CPU, in silence."""
    monkeypatch.setattr(room, "find_provider", lambda options: ("CUDAExecutionProvider", {}))
    with pytest.raises(InputError, match="device 'cuda': CUDAExecutionProvider did not start"):
        room.open_session(relu, options("cuda"))


@pytest.mark.parametrize("content", [None, b"", b"\x00\x01garbage" * 100])
def test_a_damaged_file_is_explained(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="Put the official m.onnx there" if content is None else "cannot load it"):
        room.open_session(path, options())


def test_a_file_tells_the_sizes_of_its_weights(tmp_path: Path) -> None:
    """Those of the list of weights and those that are nodes of the graph; what cannot be read is None."""
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["n", 3]) for name in "xy")
    one, other = (
        onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in (("a", 3), ("", (1, 3)))
    )
    nodes = [
        onnx.helper.make_node("Constant", [], ["b"], value=other),
        onnx.helper.make_node("Constant", [], ["c"], value_float=1.0),
        onnx.helper.make_node("Sum", ["x", "a", "b", "c"], ["y"]),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], [one])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "sum.onnx")
    assert room.constant_shapes(room.read_graph(tmp_path / "sum.onnx")) == {"a": (3,), "b": (1, 3), "c": ()}
    (tmp_path / "bad.onnx").write_bytes(b"\x00 not a model")
    assert room.read_graph(tmp_path / "bad.onnx") is None
    assert room.read_graph(tmp_path / "none.onnx") is None
