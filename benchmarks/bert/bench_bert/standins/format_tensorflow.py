"""Writes BERT as a frozen TensorFlow graph, in the official form, from sizes and numpy tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_bert.config import BertConfig, Tensors, check_weights
from bench_bert.official import INPUTS, LOGITS


def write_tensorflow(
    path: Path, config: BertConfig, tensors: Tensors, sequence: int | None = None, batch: int | None = None
) -> None:
    """`model.pb`: int32 input_ids:0, input_mask:0, segment_ids:0 [batch, sequence] -> float32 logits:0
    [batch, sequence, 2], start and end; a serialised GraphDef, so below 2 GiB of weights.

    sequence, batch: fixed sizes (the official file: 384 and 1); None takes any. Weights have the names
    of the official checkpoint. Needs tensorflow. Raises InputError as `check_weights`.
    """
    import tensorflow as tf

    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    weights = {tensorflow_name(name): value for name, value in tensors.items()}
    graph = tf.Graph()
    with graph.as_default():
        _question_answering(_Layers(tf.compat.v1, config), sequence, batch)
    with path.open("wb") as file:
        for node in graph.as_graph_def().node:
            if node.name in weights:
                node = _constant(tf.compat.v1, node.name, weights[node.name])
            # Serialised messages one after the other are their union: no second copy of all weights in memory.
            file.write(tf.compat.v1.GraphDef(node=[node]).SerializeToString())


def tensorflow_name(name: str) -> str:
    """The name in the official TensorFlow checkpoint of a tensor of the official `model.pytorch`."""
    if name.startswith("qa_outputs."):
        return f"cls/squad/output_{'weights' if name.endswith('weight') else 'bias'}"
    owner, _, kind = name.replace(".layer.", ".layer_").replace(".", "/").rpartition("/")
    if owner.endswith("_embeddings"):
        return owner
    if owner.endswith("LayerNorm"):
        return f"{owner}/{'gamma' if kind == 'weight' else 'beta'}"
    return f"{owner}/{'kernel' if kind == 'weight' else 'bias'}"


def _constant(v1: Any, name: str, value: npt.NDArray[Any]) -> Any:
    stored = np.asarray(value.T if name.endswith("/kernel") else value, np.float32)  # kernels: [inputs, outputs]
    tensor = v1.make_tensor_proto(np.ascontiguousarray(stored))
    kind = v1.AttrValue(type=tensor.dtype)
    return v1.NodeDef(name=name, op="Const", attr={"dtype": kind, "value": v1.AttrValue(tensor=tensor)})


@dataclass(frozen=True)
class _Layers:
    """What the graph is made of; a weight stands as a placeholder until the file is written.

    Activations are matrices [batch * sequence, width], as in the original: the runtime joins a matrix
    product with its bias and GELU, but not a product of three dimensions.
    """

    v1: Any
    config: BertConfig

    def weight(self, name: str, *shape: int) -> Any:
        return self.v1.placeholder(self.v1.float32, shape, name=name)

    def linear(self, x: Any, name: str, outputs: int) -> Any:
        product = self.v1.matmul(x, self.weight(f"{name}/kernel", x.shape[-1], outputs))
        return self.v1.nn.bias_add(product, self.weight(f"{name}/bias", outputs))

    def norm(self, x: Any, name: str) -> Any:
        width = self.config.hidden_size
        axis = len(x.shape) - 1  # from the front, as in the official graph: by this the remapper knows it
        mean, variance = self.v1.nn.moments(x, [axis], keepdims=True)
        scale, offset = self.weight(f"{name}/LayerNorm/gamma", width), self.weight(f"{name}/LayerNorm/beta", width)
        return self.v1.nn.batch_normalization(x, mean, variance, offset, scale, self.config.layer_norm_eps)

    def gelu(self, x: Any) -> Any:
        """x/2 * (1 + erf(x/sqrt(2))): the exact one."""
        return 0.5 * x * (1.0 + self.v1.erf(x * np.float32(np.sqrt(0.5))))


def _question_answering(layers: _Layers, sequence: int | None, batch: int | None) -> None:
    v1, width = layers.v1, layers.config.hidden_size
    ids, mask, segments = (v1.placeholder(v1.int32, [batch, sequence], name=name) for name in INPUTS)
    shape = v1.shape(ids)
    x = _embeddings(layers, ids, segments)
    # 0 on tokens and a large negative number on padding, added to the scores before the softmax
    absent = (1.0 - v1.cast(mask, v1.float32)[:, None, None, :]) * -10000.0
    for number in range(layers.config.num_hidden_layers):
        layer = f"bert/encoder/layer_{number}"
        attended = _attention(layers, x, absent, shape, f"{layer}/attention/self")
        attended = layers.linear(attended, f"{layer}/attention/output/dense", width)
        x = layers.norm(attended + x, f"{layer}/attention/output")
        inner = layers.linear(x, f"{layer}/intermediate/dense", layers.config.intermediate_size)
        x = layers.norm(layers.linear(layers.gelu(inner), f"{layer}/output/dense", width) + x, f"{layer}/output")
    logits = v1.matmul(x, layers.weight("cls/squad/output_weights", 2, width), transpose_b=True)
    logits = v1.nn.bias_add(logits, layers.weight("cls/squad/output_bias", 2))
    v1.reshape(logits, [shape[0], shape[1], 2], name=LOGITS)


def _embeddings(layers: _Layers, ids: Any, segments: Any) -> Any:
    v1, config, width = layers.v1, layers.config, layers.config.hidden_size
    words = layers.weight("bert/embeddings/word_embeddings", config.vocab_size, width)
    kinds = layers.weight("bert/embeddings/token_type_embeddings", config.type_vocab_size, width)
    positions = layers.weight("bert/embeddings/position_embeddings", config.max_position_embeddings, width)
    summed = v1.gather(words, ids) + v1.gather(kinds, segments) + positions[: v1.shape(ids)[1]]
    return v1.reshape(layers.norm(summed, "bert/embeddings"), [-1, width])


def _attention(layers: _Layers, x: Any, absent: Any, shape: Any, name: str) -> Any:
    v1, width, heads = layers.v1, layers.config.hidden_size, layers.config.num_attention_heads
    apart = [shape[0], shape[1], heads, width // heads]
    query, key, value = (
        v1.transpose(v1.reshape(layers.linear(x, f"{name}/{part}", width), apart), [0, 2, 1, 3])
        for part in ("query", "key", "value")
    )
    scores = v1.matmul(query, key, transpose_b=True) * np.float32((width // heads) ** -0.5)
    mixed = v1.matmul(v1.nn.softmax(scores + absent), value)
    return v1.reshape(v1.transpose(mixed, [0, 2, 1, 3]), [-1, width])
