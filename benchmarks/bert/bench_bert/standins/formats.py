"""Writes BERT checkpoints in the official formats, from sizes and numpy tensors.

Tensors go by their names in the official `model.pytorch` (see `config.weight_shapes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench_bert.config import BertConfig, Tensors, check_weights
from bench_bert.official import FAKE_QUANT_INPUTS, INPUTS, ONNX, OUTPUTS, PYTORCH, TENSORFLOW
from bench_bert.standins.format_tensorflow import write_tensorflow
from loadgen.harness.standins.making import Writer

if TYPE_CHECKING:
    from onnx import GraphProto, TensorProto

OPSET = 17
"""The official file has 11; from 17 on, layer normalisation is one operator instead of nine."""
_IR_VERSION = 8  # the one of opset 17, so that older runtimes read the file too


def write_pytorch(path: Path, config: BertConfig, tensors: Tensors) -> None:
    """`model.pytorch`: a float32 state dict with the names of Hugging Face's BertForQuestionAnswering.

    Needs torch. Raises InputError as `check_weights`.
    """
    import torch

    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    # torch takes arrays that can be written only; others, and those of another type, are copied
    arrays = {name: np.require(value, np.float32, ["C", "W"]) for name, value in tensors.items()}
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)


def write_onnx(path: Path, config: BertConfig, tensors: Tensors, sequence: int | None = None) -> None:
    """`model.onnx`: int64 input_ids, input_mask, segment_ids [batch, sequence] -> float32
    output_start_logits, output_end_logits of that shape; one file, so below 2 GiB of weights.

    sequence: a fixed length; None takes any. Needs onnx, not torch. Raises InputError as `check_weights`.
    """
    _write_onnx(path, config, tensors, INPUTS, ["batch", sequence or "sequence"], _Graph)


def write_int8_onnx(
    path: Path, config: BertConfig, tensors: Tensors, ranges: Mapping[str, float], per_channel: bool = True
) -> None:
    """`bert_large_v1_1_fake_quant.onnx`: as `write_onnx`, with inputs input_ids, attention_mask,
    token_type_ids, and each linear layer's input and weights rounded to 8 bits and back.

    ranges: the greatest absolute input of each layer to round, by its name without `.weight`; other layers
    stay float. per_channel: one weight scale an output channel, else one a tensor. A runtime that joins
    QuantizeLinear and DequantizeLinear with the product between computes in 8 bits.
    """

    def graph(target: GraphProto, weights: Tensors) -> _Graph:
        return _FakeQuantGraph(target, weights, ranges, per_channel)

    _write_onnx(path, config, tensors, FAKE_QUANT_INPUTS, ["batch", "sequence"], graph)


def _write_onnx(
    path: Path,
    config: BertConfig,
    tensors: Tensors,
    inputs: tuple[str, str, str],
    shape: Sequence[str | int],
    make: Callable[[GraphProto, Tensors], _Graph],
) -> None:
    import onnx
    from onnx import helper

    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    empty = helper.make_graph(
        [],
        "bert_squad",
        [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, shape) for name in inputs],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in OUTPUTS],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(empty, opset_imports=[opset], ir_version=_IR_VERSION)
    graph = make(model.graph, tensors)
    _question_answering(graph, config, inputs)
    with path.open("wb") as file:
        file.write(model.SerializeToString())
        for initializer in graph.initializers:  # in pieces, which readers join: one of 1.3 GB takes twice as long
            file.write(onnx.ModelProto(graph=onnx.GraphProto(initializer=[initializer])).SerializeToString())


WRITERS: Mapping[str, Writer[[BertConfig, Tensors]]] = MappingProxyType(
    {
        ONNX: Writer("onnx", write_onnx),
        PYTORCH: Writer("torch", write_pytorch),
        TENSORFLOW: Writer("tensorflow", write_tensorflow),
    }
)
"""File -> how it is written. What the int8 file also needs, ranges, each profile finds in its own way."""


class _Graph:
    """Adds nodes to a `GraphProto` and collects its constants; every method gives the name of its result."""

    def __init__(self, graph: GraphProto, tensors: Tensors) -> None:
        self.graph, self.tensors = graph, tensors
        self.initializers: list[TensorProto] = []

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"{operator}_{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, value: npt.ArrayLike, name: str = "") -> str:
        from onnx import numpy_helper

        name = name or f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def weight(self, name: str) -> str:
        """A tensor under its official name; matrices of linear layers lie as `x @ w` reads them."""
        value = np.asarray(self.tensors[name], np.float32)
        is_linear = name.endswith(".weight") and value.ndim == 2 and "_embeddings." not in name
        return self.constant(value.T if is_linear else value, name)

    def linear(self, x: str, name: str) -> str:
        product = self.node("MatMul", x, self.weight(f"{name}.weight"))
        return self.node("Add", product, self.weight(f"{name}.bias"))

    def norm(self, x: str, name: str, epsilon: float) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)


class _FakeQuantGraph(_Graph):
    """Rounds the inputs and weights of linear layers to 8 bits and back."""

    def __init__(self, graph: GraphProto, tensors: Tensors, ranges: Mapping[str, float], per_channel: bool) -> None:
        super().__init__(graph, tensors)
        self.ranges, self.per_channel = ranges, per_channel

    def linear(self, x: str, name: str) -> str:
        if name not in self.ranges:
            return super().linear(x, name)
        value = np.abs(np.asarray(self.tensors[f"{name}.weight"], np.float32))
        greatest = value.max(axis=1) if self.per_channel else value.max()
        rounded = self._rounded(x, np.float32(self.ranges[name]))
        product = self.node("MatMul", rounded, self._rounded(self.weight(f"{name}.weight"), greatest))
        return self.node("Add", product, self.weight(f"{name}.bias"))

    def _rounded(self, x: str, greatest: npt.ArrayLike) -> str:
        """x as a multiple, -128 to 127, of scales by which `greatest` becomes 127; scales of columns or one."""
        scale = self.constant(np.maximum(greatest, np.float32(1e-9)) / np.float32(127))
        zero = self.constant(np.zeros(np.shape(greatest), np.int8))
        quantized = self.node("QuantizeLinear", x, scale, zero, axis=1)
        return self.node("DequantizeLinear", quantized, scale, zero, axis=1)


def _question_answering(graph: _Graph, config: BertConfig, inputs: tuple[str, str, str]) -> None:
    ids, mask, segments = inputs
    x = _embeddings(graph, config, ids, segments)
    # 0 on tokens and a large negative number on padding, added to the scores before the softmax
    mask = graph.node("Cast", mask, to=1)  # 1: float32
    mask = graph.node("Unsqueeze", mask, graph.constant(np.array([1, 2], np.int64)))
    absent = graph.node("Sub", graph.constant(np.float32(1)), mask)
    mask = graph.node("Mul", absent, graph.constant(np.float32(-10000)))
    for number in range(config.num_hidden_layers):
        layer = f"bert.encoder.layer.{number}"
        attended = graph.linear(_attention(graph, x, mask, layer, config), f"{layer}.attention.output.dense")
        x = graph.node("Add", attended, x)
        x = graph.norm(x, f"{layer}.attention.output.LayerNorm", config.layer_norm_eps)
        inner = _gelu(graph, graph.linear(x, f"{layer}.intermediate.dense"))
        x = graph.node("Add", graph.linear(inner, f"{layer}.output.dense"), x)
        x = graph.norm(x, f"{layer}.output.LayerNorm", config.layer_norm_eps)
    logits = graph.linear(x, "qa_outputs")
    for column, name in enumerate(OUTPUTS):
        graph.node("Gather", logits, graph.constant(np.int64(column)), axis=2, output=name)


def _embeddings(graph: _Graph, config: BertConfig, ids: str, segments: str) -> str:
    words = graph.node("Gather", graph.weight("bert.embeddings.word_embeddings.weight"), ids)
    kinds = graph.node("Gather", graph.weight("bert.embeddings.token_type_embeddings.weight"), segments)
    length = graph.node("Shape", ids, start=1)
    table = graph.weight("bert.embeddings.position_embeddings.weight")
    first = axis = graph.constant(np.array([0]))
    positions = graph.node("Slice", table, first, length, axis)
    summed = graph.node("Add", graph.node("Add", words, kinds), positions)
    return graph.norm(summed, "bert.embeddings.LayerNorm", config.layer_norm_eps)


def _attention(graph: _Graph, x: str, mask: str, layer: str, config: BertConfig) -> str:
    size = config.hidden_size // config.num_attention_heads
    apart = graph.constant(np.array([0, 0, config.num_attention_heads, size]))  # 0 keeps an axis
    query, key, value = (
        graph.node("Reshape", graph.linear(x, f"{layer}.attention.self.{part}"), apart)
        for part in ("query", "key", "value")
    )
    query = graph.node("Transpose", query, perm=[0, 2, 1, 3])
    key = graph.node("Transpose", key, perm=[0, 2, 3, 1])
    value = graph.node("Transpose", value, perm=[0, 2, 1, 3])
    scores = graph.node("Div", graph.node("MatMul", query, key), graph.constant(np.float32(np.sqrt(size))))
    weights = graph.node("Softmax", graph.node("Add", scores, mask), axis=-1)
    mixed = graph.node("Transpose", graph.node("MatMul", weights, value), perm=[0, 2, 1, 3])
    return graph.node("Reshape", mixed, graph.constant(np.array([0, 0, config.hidden_size])))


def _gelu(graph: _Graph, x: str) -> str:
    """x/2 * (1 + erf(x/sqrt(2))): the exact one that BERT was trained with."""
    erf = graph.node("Erf", graph.node("Div", x, graph.constant(np.float32(np.sqrt(2)))))
    doubled = graph.node("Mul", x, graph.node("Add", erf, graph.constant(np.float32(1))))
    return graph.node("Mul", doubled, graph.constant(np.float32(0.5)))
