"""A graph in the form of the official `model.pb`: one row of 384 tokens, nodes as the official freezing leaves them.

TensorFlow 2.21's remapper takes a layer normalisation of this form for one of its own, whose epsilon is 0.001: on a
CPU with AVX-512 the logits below are then off by 0.016.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench_bert import backend_pytorch, backend_tensorflow
from bench_bert.config import BertConfig, write_config
from bench_bert.dataset import Batch
from bench_bert.standins.format_tensorflow import write_tensorflow
from bench_bert.standins.formats import write_pytorch
from bench_bert.standins.synthetic import random_tensors
from loadgen.contracts import BackendOptions

TOKENS = 384
CONFIG = BertConfig(
    vocab_size=60,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=TOKENS,
)
REMOVED = ("Identity", "StopGradient")  # by the official freezing


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.pb` and `model.pytorch` of the same weights."""
    folder = tmp_path_factory.mktemp("official")
    tensors = small_tensors()
    write_config(folder / "bert_config.json", CONFIG)
    write_pytorch(folder / "model.pytorch", CONFIG, tensors)
    write_tensorflow(folder / "model.pb", CONFIG, tensors, TOKENS, 1)
    _freeze(folder / "model.pb")
    return folder


def small_tensors() -> dict[str, Any]:
    """Weights by which what is normalised has a variance of 1e-3 or less everywhere, and logits are of usual size."""
    rng, tensors = np.random.default_rng(3), random_tensors(CONFIG, 1)
    for name, value in tensors.items():
        if "LayerNorm" in name:
            value += rng.standard_normal(value.shape, np.float32)
            value *= 0.02
        elif name.startswith("qa_outputs"):
            value *= 20
        elif "_embeddings." in name:
            value *= 0.1
    return tensors


def _freeze(path: Path) -> None:
    """As the official script does after it has made constants of all variables."""
    definition = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    source = {node.name: node.input[0] for node in definition.node if node.op in REMOVED}
    frozen = tf.compat.v1.GraphDef(node=[node for node in definition.node if node.name not in source])
    for node in frozen.node:
        node.input[:] = [source.get(name, name) for name in node.input]
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(frozen, name="")
    path.write_bytes(graph.as_graph_def(add_shapes=True).SerializeToString())


def test_it_has_the_official_pattern(model: Path) -> None:
    definition = tf.compat.v1.GraphDef.FromString((model / "model.pb").read_bytes())
    nodes = {node.name: node for node in definition.node}
    operations = [node.op for node in definition.node]
    assert not set(operations) & {*REMOVED, "LayerNorm", "FusedBatchNormV3"}
    norms = 1 + 2 * CONFIG.num_hidden_layers
    assert (operations.count("Rsqrt"), operations.count("SquaredDifference")) == (norms, norms)
    axes = [tf.make_ndarray(nodes[node.input[1]].attr["value"].tensor) for node in definition.node if node.op == "Mean"]
    assert sorted(int(axis[0]) for axis in axes) == [1] * (2 * norms - 2) + [2] * 2, "counted from the front"
    shape = nodes["input_ids"].attr["shape"].shape
    assert [size.size for size in shape.dim] == [1, TOKENS]


def test_tensorflow_computes_what_pytorch_does(model: Path) -> None:
    rng = np.random.default_rng(5)
    mask = (np.arange(TOKENS) < np.array([[TOKENS], [100]])).astype(np.int64)
    segments = (np.arange(TOKENS) >= 12) * mask
    batch = Batch(rng.integers(1, CONFIG.vocab_size, mask.shape) * mask, mask, segments, width=TOKENS)
    answers: list[Any] = []
    for runtime in (backend_pytorch, backend_tensorflow):
        backend: Any = runtime.Backend(BackendOptions(model, threads=1))  # type: ignore[attr-defined]
        backend.load()
        answers.append(backend.predict(batch))
        backend.close()
    assert np.abs(answers[0][0]).max() > 0.5, "logits large enough for the tolerance to mean something"
    assert np.abs(answers[0] - answers[1]).max() < 1e-4
