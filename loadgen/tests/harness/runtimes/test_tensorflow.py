"""The room of TensorFlow. Runs where TensorFlow is: in a benchmark's test session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.runtimes import tensorflow as room

tf = pytest.importorskip("tensorflow")

TOKENS, WORDS, WIDTH = 12, 20, 16
EPSILON = 1e-12


def options(*devices: str, **rest: Any) -> BackendOptions:
    return BackendOptions(Path("model"), devices=devices or ("cpu",), **rest)


def _norm(x: Any, gamma: Any, beta: Any) -> Any:
    """As TensorFlow 1's `layer_norm` writes it: moments and batch normalisation over the last axis."""
    v1 = tf.compat.v1
    axes = [len(x.shape) - 1]
    mean = v1.reduce_mean(x, axes, keepdims=True)
    variance = v1.reduce_mean(v1.squared_difference(x, mean), axes, keepdims=True)
    return v1.nn.batch_normalization(x, mean, variance, tf.constant(beta), tf.constant(gamma), EPSILON)


@pytest.fixture
def weights() -> dict[str, Any]:
    """Small ones: a variance of 1e-6 or less is nothing beside 0.001, but much beside 1e-12."""
    rng = np.random.default_rng(0)
    small = {"table": rng.standard_normal((WORDS, WIDTH)) * 1e-3, "kernel": rng.standard_normal((WIDTH, WIDTH)) * 1e-4}
    vectors = {name: rng.standard_normal(WIDTH) for name in ("gamma", "beta", "gamma_2", "beta_2")}
    return {name: value.astype(np.float32) for name, value in (small | vectors).items()}


@pytest.fixture
def frozen(weights: dict[str, Any], tmp_path: Path) -> Path:
    """A graph in the form of BERT's official freezing: one row of a fixed length, first [1, S, W], then [S, W]."""
    graph = tf.Graph()
    with graph.as_default():
        ids = tf.compat.v1.placeholder(tf.int32, [1, TOKENS], name="ids")
        x = tf.gather(tf.constant(weights["table"], name="table"), ids)
        x = tf.reshape(_norm(x, weights["gamma"], weights["beta"]), [TOKENS, WIDTH])
        x = tf.matmul(x, tf.constant(weights["kernel"], name="kernel"))
        tf.identity(_norm(x, weights["gamma_2"], weights["beta_2"]), name="output")
    (tmp_path / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return tmp_path / "model.pb"


def _expected(weights: dict[str, Any], ids: Any) -> Any:
    def norm(x: Any, gamma: Any, beta: Any) -> Any:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPSILON) * gamma + beta

    exact = {name: value.astype(np.float64) for name, value in weights.items()}
    x = norm(exact["table"][ids[0]], exact["gamma"], exact["beta"])
    return norm(x @ exact["kernel"], exact["gamma_2"], exact["beta_2"])


def test_a_layer_normalisation_keeps_its_epsilon(frozen: Path, weights: dict[str, Any]) -> None:
    """With remapping TensorFlow 2.21 on a CPU with AVX-512 gives numbers that are off by 3.6."""
    graph = room.read_graph(frozen, "cpu")
    assert sorted(value.shape for value in graph.matrices.values()) == [(WIDTH, WIDTH), (WORDS, WIDTH)]
    ids = np.arange(TOKENS)[None] % WORDS
    with room.open_session(graph, options(threads=1)) as session:
        output = session.run("output:0", {"ids:0": ids})
    assert np.abs(output - _expected(weights, ids)).max() < 1e-4


@pytest.mark.parametrize(("threads", "extra", "expected"), [(3, {"threads": 2}, 3), (0, {"threads": 2}, 2), (0, {}, 0)])
def test_threads(threads: int, extra: dict[str, int], expected: int, frozen: Path) -> None:
    session = room.open_session(room.read_graph(frozen, "cpu"), options(threads=threads, extra=extra))
    assert session._config.intra_op_parallelism_threads == expected
    session.close()


def test_a_graph_without_normalisation_keeps_the_remapping(tmp_path: Path) -> None:
    graph = tf.Graph()
    with graph.as_default():
        tf.nn.relu(tf.compat.v1.placeholder(tf.float32, [2], name="x"), name="y")
    (tmp_path / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    session = room.open_session(room.read_graph(tmp_path / "model.pb", "cpu"), options())
    assert session._config.graph_options.rewrite_options.remapping == 0  # TensorFlow's own choice
    assert session.run("y:0", {"x:0": [-1, 1]}).tolist() == [0, 1]
    session.close()


def test_what_is_loaded_is_told() -> None:
    told = room.loaded(options())
    assert (told.device, told.dtype, dict(told.versions)) == ("cpu", "float32", {"tensorflow": tf.__version__})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (options("tpu"), "device 'tpu': use cpu, cuda or cuda:N"),
        (options("cuda"), "device 'cuda': this TensorFlow .* sees no GPU. .*use device cpu"),
        (options("cpu", "cpu"), "devices cpu, cpu: this backend computes on one device"),
        (options(dtype="int8"), "dtype 'int8': model.pb is of float32"),
    ],
)
def test_what_is_not_there_is_an_error(asked: BackendOptions, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(InputError, match=message):
        room.check_options(asked, "model.pb")


def test_a_gpu_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"])
    room.check_options(options("cuda:1"), "model.pb")
    with pytest.raises(InputError, match="device 'cuda:2': use one of cpu, cuda, cuda:0, cuda:1"):
        room.check_options(options("cuda:2"), "model.pb")


@pytest.mark.parametrize("content", [None, b"\x00\x01garbage" * 100])
def test_a_damaged_file_is_explained(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "m.pb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="Put the official m.pb there" if content is None else "not a frozen"):
        room.read_graph(path, "cpu")
