"""TensorFlow's file is in the official form, and what else may be there is named. Logits: see test_agreement.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench_resnet50.backend_tensorflow import Backend
from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.dataset import Batch
from bench_resnet50.format_tensorflow import write_tensorflow
from bench_resnet50.formats import BACKGROUND_LOGIT, TENSORFLOW, random_tensors
from loadgen.contracts import BackendOptions, InputError

SMALL = ResNetConfig(layers=(1, 1), width=4, classes=6, image=20)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    return random_tensors(SMALL, 1)


@pytest.fixture(scope="module")
def model(tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_config(folder / FILE, SMALL)
    write_tensorflow(folder / TENSORFLOW, SMALL, tensors)
    return folder


@pytest.fixture(scope="module")
def batch() -> Batch:
    return Batch(np.random.default_rng(2).integers(0, 256, (5, 20, 20, 3)).astype(np.uint8), "torch")


def loaded(folder: Path, **options: Any) -> Backend:
    backend = Backend(BackendOptions(folder, threads=1, **options))
    backend.load()
    return backend


def test_the_file_is_as_the_official_one(model: Path) -> None:
    definition = tf.compat.v1.GraphDef.FromString((model / TENSORFLOW).read_bytes())
    nodes = {node.name: node for node in definition.node}
    assert (nodes["input_tensor"].op, nodes["softmax_tensor"].op, nodes["ArgMax"].op) == (
        "Placeholder",
        "Softmax",
        "ArgMax",
    )
    assert [d.size for d in nodes["input_tensor"].attr["shape"].shape.dim] == [-1, 20, 20, 3]
    assert nodes["input_tensor"].attr["dtype"].type == tf.float32.as_datatype_enum
    assert nodes["ArgMax"].attr["output_type"].type == tf.int64.as_datatype_enum
    bias = tf.make_ndarray(nodes["fc/bias"].attr["value"].tensor)
    assert bias.shape == (7,)
    assert bias[0] == BACKGROUND_LOGIT


def test_the_official_outputs_say_the_same(model: Path, batch: Batch) -> None:
    """ArgMax counts from the background on; the softmax is that of the logits."""
    backend = loaded(model)
    logits = backend.predict(batch)
    session = backend.session
    images = np.random.default_rng(0).standard_normal((4, 20, 20, 3), np.float32)
    feed = {"input_tensor:0": images}
    classes, probabilities, inner = session.run(["ArgMax:0", "softmax_tensor:0", backend.logits], feed)
    assert (classes == probabilities.argmax(axis=1)).all()
    assert (classes - 1 == inner[:, 1:].argmax(axis=1)).all()
    assert logits.shape == (5, 6)
    assert logits.dtype == np.float32


@pytest.mark.parametrize("rows", [1, 2])
def test_a_graph_of_fixed_size(rows: int, model: Path, tensors: dict[str, Any], batch: Batch, tmp_path: Path) -> None:
    write_config(tmp_path / FILE, SMALL)
    write_tensorflow(tmp_path / TENSORFLOW, SMALL, tensors, batch=rows)
    backend = loaded(tmp_path)
    assert backend.rows == rows
    assert np.abs(backend.predict(batch) - loaded(model).predict(batch)).max() < 1e-4


@pytest.mark.parametrize("content", [None, b"", b"\x00\x01garbage" * 100, "cut"])
def test_a_file_missing_or_damaged(content: Any, model: Path, tmp_path: Path) -> None:
    write_config(tmp_path / FILE, SMALL)
    whole = (model / TENSORFLOW).read_bytes()
    if content is not None:
        (tmp_path / TENSORFLOW).write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    with pytest.raises(InputError, match="no such file" if content is None else "etch it again") as caught:
        loaded(tmp_path)
    assert str(tmp_path / TENSORFLOW) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"input_tensor", b"other_tensor", "has no Placeholder input_tensor:0"),
        (b"softmax_tensor", b"another_tensor", "has no Softmax softmax_tensor:0"),
    ],
)
def test_other_names_are_told(old: bytes, new: bytes, message: str, model: Path, tmp_path: Path) -> None:
    write_config(tmp_path / FILE, SMALL)
    (tmp_path / TENSORFLOW).write_bytes((model / TENSORFLOW).read_bytes().replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        loaded(tmp_path)
    assert str(tmp_path / TENSORFLOW) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 7}, r"tensor softmax_tensor:0 has shape \(None, 7\), expected \['n', 8\]"),
        ({"image": 24}, r"tensor input_tensor:0 has shape \(None, 20, 20, 3\), expected \['n', 24, 24, 3\]"),
    ],
)
def test_other_sizes_are_told(change: dict[str, int], message: str, model: Path, tmp_path: Path) -> None:
    write_config(tmp_path / FILE, replace(SMALL, **change))
    (tmp_path / TENSORFLOW).write_bytes((model / TENSORFLOW).read_bytes())
    with pytest.raises(InputError, match=message):
        loaded(tmp_path)


def test_what_the_backend_has_not_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(InputError, match=r"device 'cuda': .*use device cpu"):
        loaded(model, device="cuda")
    with pytest.raises(InputError, match="device 'tpu': use cpu"):
        loaded(model, device="tpu")
    with pytest.raises(InputError, match="dtype 'int8'"):
        loaded(model, dtype="int8")
    with pytest.raises(InputError, match="use --profile"):
        loaded(model, extra={"variant": "torch"})


def test_tensors_that_do_not_fit_are_not_written(tensors: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tensors to write: tensor 'layer3\.0\.conv1\.weight'"):
        write_tensorflow(tmp_path / TENSORFLOW, replace(SMALL, layers=(1, 1, 1)), tensors)
    assert not list(tmp_path.iterdir())
