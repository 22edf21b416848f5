"""ONNX Runtime and PyTorch against a network computed in numpy, and what they say to files that do not fit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch

from bench_resnet50 import backend_onnxruntime, backend_pytorch
from bench_resnet50.config import FILE, ResNetConfig, bottlenecks, read_config, weight_shapes, write_config
from bench_resnet50.dataset import Batch
from bench_resnet50.formats import ONNX, PYTORCH, random_tensors, write_onnx, write_pytorch
from bench_resnet50.model import ResNet
from bench_resnet50.preprocess import normalised
from loadgen.contracts import BackendOptions, InputError

SMALL = ResNetConfig(layers=(2, 1, 2), width=8, classes=30, image=64)
BACKENDS: dict[str, Any] = {"onnxruntime": backend_onnxruntime.Backend, "pytorch": backend_pytorch.Backend}
FILES = {"onnxruntime": ONNX, "pytorch": PYTORCH}
TOLERANCE = 2e-5  # of logits around 5; measured: 2e-6
Values = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    rng = np.random.default_rng(3)  # batch normalisation far off its starting values too
    started = random_tensors(SMALL, 1)
    return {k: v * np.exp(rng.normal(0, 0.2, v.shape)).astype(np.float32) for k, v in started.items()}


@pytest.fixture(scope="module")
def model(tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_config(folder / FILE, SMALL)
    write_onnx(folder / ONNX, SMALL, tensors)
    write_pytorch(folder / PYTORCH, SMALL, tensors)
    return folder


@pytest.fixture(scope="module")
def batch() -> Batch:
    return Batch(np.random.default_rng(2).integers(0, 256, (5, 64, 64, 3), np.uint8))


def convolved(x: Values, weight: Values, stride: int) -> Values:
    size = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))[:, :, ::stride, ::stride]
    return np.asarray(np.einsum("ncyxij,ocij->noyx", windows, weight, optimize=True))


def in_numpy(tensors: dict[str, Any], images: Values) -> Values:
    """Logits in float64, from the definition of each layer."""
    t = {name: value.astype(np.float64) for name, value in tensors.items()}

    def step(x: Values, convolution: str, norm: str, stride: int = 1) -> Values:
        x = convolved(x, t[f"{convolution}.weight"], stride)
        scale, shift, mean, var = (
            t[f"{norm}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return np.asarray((x - mean) / np.sqrt(var + 1e-5) * scale + shift)

    x = np.maximum(step(images, "conv1", "bn1", 2), 0)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    x = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2].max((-1, -2))
    for block in bottlenecks(SMALL):
        name, same = block.name, x
        x = np.maximum(step(x, f"{name}.conv1", f"{name}.bn1"), 0)
        x = np.maximum(step(x, f"{name}.conv2", f"{name}.bn2", block.stride), 0)
        x = step(x, f"{name}.conv3", f"{name}.bn3")
        if f"{name}.downsample.0.weight" in t:
            same = step(same, f"{name}.downsample.0", f"{name}.downsample.1", block.stride)
        x = np.maximum(x + same, 0)
    return np.asarray(x.mean((2, 3)) @ t["fc.weight"].T + t["fc.bias"])


@pytest.fixture(scope="module")
def expected(tensors: dict[str, Any], batch: Batch) -> Any:
    return in_numpy(tensors, normalised(batch).astype(np.float64).transpose(0, 3, 1, 2))


def centred(logits: Any) -> Any:
    """Without the constant a row that a softmax takes away."""
    return logits - logits.mean(axis=1, keepdims=True)


def loaded(name: str, folder: Path, **options: Any) -> Any:
    backend = BACKENDS[name](BackendOptions(folder, threads=1, **options))
    backend.load()
    return backend


@pytest.mark.parametrize("name", BACKENDS)
def test_equals_numpy(name: str, model: Path, batch: Batch, expected: Any) -> None:
    backend = loaded(name, model)
    logits = backend.submit(batch).result()
    assert (logits.shape, logits.dtype) == ((5, 30), np.float32)
    assert np.abs(centred(expected)).max() > 1, "logits large enough for the tolerance to mean something"
    assert np.abs(centred(logits) - centred(expected)).max() < TOLERANCE
    backend.close()


@pytest.mark.parametrize("name", BACKENDS)
def test_an_answer_does_not_depend_on_its_batch(name: str, model: Path, batch: Batch, expected: Any) -> None:
    backend = loaded(name, model)
    for rows in ([4], [2, 0], [1, 1, 3]):
        logits = backend.predict(Batch(batch.images, rows=np.array(rows)))
        assert np.abs(centred(logits) - centred(expected[rows])).max() < TOLERANCE


def test_torchvisions_normalisation(tensors: dict[str, Any], model: Path, batch: Batch) -> None:
    other = Batch(batch.images, "torch")
    expected = in_numpy(tensors, normalised(other).astype(np.float64).transpose(0, 3, 1, 2))
    logits = loaded("pytorch", model, extra={"variant": "torch"}).predict(other)
    assert np.abs(logits - expected).max() < TOLERANCE


def test_onnx_of_a_fixed_batch(tensors: dict[str, Any], batch: Batch, expected: Any, tmp_path: Path) -> None:
    for rows in (1, 3):
        write_onnx(tmp_path / ONNX, SMALL, tensors, batch=rows)
        logits = loaded("onnxruntime", tmp_path).predict(batch)
        assert np.abs(centred(logits) - centred(expected)).max() < TOLERANCE


def test_the_onnx_file_is_as_the_official_one(model: Path, batch: Batch, expected: Any) -> None:
    onnx.checker.check_model(model / ONNX, full_check=True)
    graph = onnx.load(model / ONNX).graph
    assert [i.name for i in graph.input] == ["input_tensor:0"]
    kinds = {o.name: o.type.tensor_type.elem_type for o in graph.output}
    assert kinds == {"ArgMax:0": onnx.TensorProto.INT64, "softmax_tensor:0": onnx.TensorProto.FLOAT}
    session = onnxruntime.InferenceSession(str(model / ONNX))
    images = np.ascontiguousarray(normalised(batch).transpose(0, 3, 1, 2))
    classes, probabilities = session.run(["ArgMax:0", "softmax_tensor:0"], {"input_tensor:0": images})
    assert probabilities.shape == (5, 31)
    assert (probabilities[:, 0] < 1e-20).all()
    assert (classes - 1 == expected.argmax(axis=1)).all()


def test_without_onednn_the_cpu_computes_the_same(
    model: Path, batch: Batch, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    backend = loaded("pytorch", model)
    assert isinstance(backend.model, ResNet)
    assert np.abs(backend.predict(batch) - expected).max() < TOLERANCE


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits_are_close(dtype: str, model: Path, batch: Batch, expected: Any) -> None:
    logits = loaded("pytorch", model, dtype=dtype).predict(batch)
    assert logits.dtype == np.float32
    assert TOLERANCE < np.abs(logits - expected).max() < 0.2


def test_counters_of_training_steps_are_passed_over(model: Path, batch: Batch, expected: Any, tmp_path: Path) -> None:
    state = torch.load(model / PYTORCH, weights_only=True)
    state |= {f"{n.removesuffix('weight')}num_batches_tracked": torch.tensor(5) for n in state if "bn" in n}
    write_config(tmp_path / FILE, SMALL)
    torch.save(state, tmp_path / PYTORCH)
    assert np.abs(loaded("pytorch", tmp_path).predict(batch) - expected).max() < TOLERANCE


def test_names_and_sizes_of_resnet_50() -> None:
    shapes = weight_shapes(ResNetConfig())
    trained = [np.prod(shape) for name, shape in shapes.items() if "running" not in name]
    assert sum(trained) == 25_557_032  # as torchvision states
    assert len(shapes) == 53 * 5 + 2  # convolutions with their normalisation, and the last layer
    assert shapes["layer3.5.conv2.weight"] == (256, 256, 3, 3)
    assert shapes["layer4.0.downsample.0.weight"] == (2048, 1024, 1, 1)
    with torch.device("meta"):
        ours = ResNet(ResNetConfig())
    state = {k: tuple(v.shape) for k, v in ours.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert state == shapes
    assert ours.get_submodule("layer2.0.conv1").stride == (1, 1)
    assert ours.get_submodule("layer2.0.conv2").stride == (2, 2), "v1.5"


def _drop(state: dict[str, Any]) -> None:
    del state["layer2.0.bn2.running_var"]


def _reshape(state: dict[str, Any]) -> None:
    state["fc.weight"] = torch.zeros(31, 128)


def _add(state: dict[str, Any]) -> None:
    state["layer4.0.conv1.weight"] = torch.zeros(48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, r"'layer2.0.bn2.running_var' \[16\] is missing"),
        (_reshape, r"'fc.weight' has shape \[31, 128\], expected \[30, 128\]"),
        (_add, "'layer4.0.conv1.weight' is unknown"),
    ],
)
def test_weights_of_another_shape_are_named(
    change: Callable[[dict[str, Any]], None], message: str, model: Path, tmp_path: Path
) -> None:
    state = torch.load(model / PYTORCH, weights_only=True)
    change(state)
    torch.save(state, tmp_path / PYTORCH)
    write_config(tmp_path / FILE, SMALL)
    with pytest.raises(InputError, match=message) as caught:
        loaded("pytorch", tmp_path)
    assert str(tmp_path / PYTORCH) in str(caught.value)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("content", [None, b"", b"\x00\x01garbage" * 100, "cut"])
def test_weights_missing_or_damaged(name: str, content: Any, model: Path, tmp_path: Path) -> None:
    write_config(tmp_path / FILE, SMALL)
    whole = (model / FILES[name]).read_bytes()
    if content is not None:
        (tmp_path / FILES[name]).write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    with pytest.raises(InputError, match="no such file" if content is None else "etch it again") as caught:
        loaded(name, tmp_path)
    assert str(tmp_path / FILES[name]) in str(caught.value)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path / FILE, SMALL)
    torch.save({"weight": Path("x")}, tmp_path / PYTORCH)
    with pytest.raises(InputError, match="not a PyTorch state dict"):
        loaded("pytorch", tmp_path)


def renamed(path: Path, old: str, new: str) -> None:
    document = onnx.load(path)
    for node in document.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for slot in [*document.graph.input, *document.graph.output]:
        slot.name = new if slot.name == old else slot.name
    onnx.save(document, path)


@pytest.mark.parametrize("name", ["input_tensor:0", "softmax_tensor:0"])
def test_an_onnx_file_with_other_names_is_refused(name: str, tensors: dict[str, Any], tmp_path: Path) -> None:
    write_onnx(tmp_path / ONNX, SMALL, tensors)
    renamed(tmp_path / ONNX, name, "other")
    with pytest.raises(InputError, match=r"'other'.*expected input 'input_tensor:0'.*use the official file"):
        loaded("onnxruntime", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "not JSON"),
        ("[]", "one JSON object of layers, width"),
        ("{}", "one JSON object of layers, width"),
        (json.dumps(asdict(SMALL) | {"width": "8"}), "'width' is '8', expected a positive"),
        (json.dumps(asdict(SMALL) | {"image": True}), "'image' is True, expected a positive"),
        (json.dumps(asdict(SMALL) | {"layers": [1, 0]}), r"'layers' is \[1, 0\], expected a list"),
    ],
)
def test_a_wrong_config_is_named(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / FILE).write_text(content)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / FILE)


@pytest.mark.parametrize("policy", ["", "ACTIVE"])
def test_openmp_threads_sleep_while_they_wait(policy: str) -> None:
    """Unless the user says otherwise. Asked of ncnn's library itself, which reads the environment on being loaded;
    PyTorch's does the same, but takes seconds to import."""
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    given = {"OMP_WAIT_POLICY": policy} if policy else {}
    code = "import bench_resnet50.backend_ncnn"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **given, "OMP_DISPLAY_ENV": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(re.findall("OMP_WAIT_POLICY = '(.*)'", done.stderr)) == {policy or "PASSIVE"}


@pytest.mark.parametrize("name", BACKENDS)
def test_cuda_without_a_gpu_is_an_error(name: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=r"device 'cuda': .*use device cpu"):
        loaded(name, model, device="cuda")


@pytest.mark.parametrize("name", BACKENDS)
def test_an_unknown_device_or_dtype_is_an_error(name: str, model: Path) -> None:
    with pytest.raises(InputError, match="device 'tpu': use cpu"):
        loaded(name, model, device="tpu")
    with pytest.raises(InputError, match="dtype 'int4'"):
        loaded(name, model, dtype="int4")


@pytest.mark.parametrize(("name", "other"), [("onnxruntime", "torch"), ("pytorch", "tf")])
def test_the_profile_of_other_weights_is_refused(name: str, other: str, model: Path) -> None:
    with pytest.raises(InputError, match="use --profile"):
        loaded(name, model, extra={"variant": other})


def test_tensors_that_do_not_fit_are_not_written(tensors: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tensors to write: tensor 'layer4\.0\.conv1"):
        write_onnx(tmp_path / ONNX, replace(SMALL, layers=(2, 1, 2, 1)), tensors)
