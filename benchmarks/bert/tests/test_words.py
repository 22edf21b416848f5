"""How many words the table in an ONNX file has: read from the file where it can be, else found by running it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from bench_bert import backend_onnxruntime
from bench_bert.config import BertConfig, write_config
from bench_bert.standins.formats import write_onnx
from bench_bert.standins.synthetic import random_tensors
from loadgen.contracts import BackendOptions, InputError

SMALL = BertConfig(60, 16, 1, 2, 32, 32)
TABLE = "bert.embeddings.word_embeddings.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_onnx(tmp_path / "model.onnx", SMALL, random_tensors(SMALL, 1))
    return tmp_path


def load(folder: Path, words: int, *devices: str) -> None:
    write_config(folder / "bert_config.json", replace(SMALL, vocab_size=words))
    backend_onnxruntime.Backend(BackendOptions(folder, devices or ("cpu",), threads=1)).load()


def replaced(folder: Path, inputs: list[str], *before: onnx.NodeProto) -> None:
    """The file with other nodes before the one that looks words up, and with their results as its inputs."""
    document = onnx.load(folder / "model.onnx")
    (lookup,) = [node for node in document.graph.node if TABLE in node.input]
    lookup.input[:] = inputs
    for place, node in enumerate(before):
        document.graph.node.insert(place, node)
    for name, value in {"scale": np.float32(0.01), "zero": np.int8(0)}.items():
        document.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.save(document, folder / "model.onnx")


def test_a_table_is_measured_before_a_session_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU reads beyond its end and says nothing, so the file must tell."""
    monkeypatch.setattr(backend_onnxruntime.runtime, "find_provider", lambda options: ("CUDAExecutionProvider", {}))
    with pytest.raises(InputError, match=r"model.onnx: knows 60 words, expected 61: use the weights and"):
        load(folder, 61, "cuda")


@pytest.mark.parametrize(("words", "said"), [(59, "more"), (60, ""), (61, "fewer")])
def test_a_table_that_the_file_does_not_show(words: int, said: str, folder: Path) -> None:
    """It is computed, as it may be in somebody's export: then the ends of it are looked for."""
    parts = [onnx.helper.make_node(operator, [TABLE], [operator]) for operator in ("Abs", "Sign")]
    replaced(folder, ["again", "input_ids"], *parts, onnx.helper.make_node("Mul", ["Abs", "Sign"], ["again"]))
    assert backend_onnxruntime.words_in(folder / "model.onnx") is None
    if not said:
        load(folder, words)
        return
    with pytest.raises(InputError, match=rf"model.onnx: knows {said} than {words} words"):
        load(folder, words)


def test_words_are_counted_through_casts_and_rounding(folder: Path) -> None:
    """As in files that PyTorch, tf2onnx and quantisers write."""
    quantize = onnx.helper.make_node("QuantizeLinear", [TABLE, "scale", "zero"], ["rounded"])
    back = onnx.helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["back"])
    replaced(folder, ["back", "cast"], quantize, back, onnx.helper.make_node("Cast", ["input_ids"], ["cast"], to=6))
    assert backend_onnxruntime.words_in(folder / "model.onnx") == 60
    load(folder, 60)


def test_weights_may_be_constants_of_the_graph(folder: Path) -> None:
    """As some exporters write them."""
    document = onnx.load(folder / "model.onnx")
    (table,) = [tensor for tensor in document.graph.initializer if tensor.name == TABLE]
    document.graph.node.insert(0, onnx.helper.make_node("Constant", [], [TABLE], value=table))
    document.graph.initializer.remove(table)
    onnx.save(document, folder / "model.onnx")
    assert backend_onnxruntime.words_in(folder / "model.onnx") == 60
