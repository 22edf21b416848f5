"""Every backend against an implementation that is not ours, and what they say to files that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
import transformers

from bench_bert import backend_onnxruntime, backend_pytorch, backend_tensorflow
from bench_bert.config import BertConfig, read_config, weight_shapes, write_config
from bench_bert.dataset import Batch
from bench_bert.official import FAKE_QUANT
from bench_bert.postprocess import PADDING, check_outputs
from bench_bert.standins.format_tensorflow import write_tensorflow
from bench_bert.standins.formats import write_int8_onnx, write_onnx, write_pytorch
from bench_bert.standins.synthetic import random_tensors
from loadgen.contracts import BackendOptions, InputError

TheirBert: Any = transformers.BertForQuestionAnswering  # has no types
TheirConfig: Any = transformers.BertConfig

SMALL = BertConfig(
    vocab_size=50,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=40,
)
LENGTHS = (32, 7, 19, 1)
WIDTH = 36
BACKENDS: dict[str, Any] = {
    "onnxruntime": backend_onnxruntime.Backend,
    "pytorch": backend_pytorch.Backend,
    "tensorflow": backend_tensorflow.Backend,
}
TOLERANCE = 1e-4  # of logits around 1; measured: 2e-6


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    rng = np.random.default_rng(3)  # biases and norms off their starting values too
    started = random_tensors(SMALL, 1)
    return {k: v + 0.1 * rng.standard_normal(v.shape, np.float32) for k, v in started.items()}


@pytest.fixture(scope="module")
def model(tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_config(folder / "bert_config.json", SMALL)
    write_onnx(folder / "model.onnx", SMALL, tensors)
    write_pytorch(folder / "model.pytorch", SMALL, tensors)
    write_tensorflow(folder / "model.pb", SMALL, tensors)
    return folder


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(2)
    mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int64)
    ids = rng.integers(1, SMALL.vocab_size, mask.shape) * mask
    segments = (np.arange(max(LENGTHS)) >= 3) * mask
    return Batch(ids, mask, segments, width=WIDTH)


@pytest.fixture(scope="module")
def expected(tensors: dict[str, Any], batch: Batch) -> Any:
    """Answers [n, 36, 2] of transformers' model with the same weights."""
    theirs = TheirBert(TheirConfig(**asdict(SMALL), hidden_act="gelu", attn_implementation="eager")).eval()
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    theirs.load_state_dict(state, strict=True)
    with torch.inference_mode():
        output = theirs(
            input_ids=torch.from_numpy(batch.input_ids),
            attention_mask=torch.from_numpy(batch.input_mask),
            token_type_ids=torch.from_numpy(batch.segment_ids),
        )
    logits = np.stack([output.start_logits.numpy(), output.end_logits.numpy()], axis=-1)
    answers = np.full((len(LENGTHS), WIDTH, 2), PADDING, np.float32)
    for row, length in enumerate(LENGTHS):
        answers[row, :length] = logits[row, :length]
    return answers


def loaded(name: str, folder: Path, **options: Any) -> Any:
    backend = BACKENDS[name](BackendOptions(folder, threads=1, **options))
    backend.load()
    return backend


@pytest.mark.parametrize("name", BACKENDS)
def test_equals_transformers(name: str, model: Path, batch: Batch, expected: Any) -> None:
    answers = loaded(name, model).submit(batch).result()
    assert answers.shape == (len(LENGTHS), WIDTH, 2)
    assert answers.dtype == np.float32
    assert np.abs(expected[0, :32]).max() > 0.5, "logits large enough for the tolerance to mean something"
    assert np.abs(answers - expected).max() < TOLERANCE


def test_the_padded_baseline_equals_transformers(model: Path, batch: Batch, expected: Any) -> None:
    answers = backend_pytorch.padded(loaded("pytorch", model), batch)
    assert np.abs(answers - expected).max() < TOLERANCE


@pytest.mark.parametrize("name", BACKENDS)
def test_an_answer_does_not_depend_on_its_batch(name: str, model: Path, batch: Batch, expected: Any) -> None:
    backend = loaded(name, model)
    for row, length in enumerate(LENGTHS):
        part = np.s_[row : row + 1, :length]
        alone = Batch(batch.input_ids[part], batch.input_mask[part], batch.segment_ids[part], width=WIDTH)
        assert np.abs(backend.predict(alone) - expected[row]).max() < TOLERANCE


def test_onnx_of_one_fixed_length_and_the_int8_names(
    tensors: dict[str, Any], batch: Batch, expected: Any, tmp_path: Path
) -> None:
    write_config(tmp_path / "bert_config.json", SMALL)
    write_onnx(tmp_path / "model.onnx", SMALL, tensors, sequence=WIDTH)
    assert np.abs(loaded("onnxruntime", tmp_path).predict(batch) - expected).max() < TOLERANCE
    document = onnx.load(tmp_path / "model.onnx")
    assert [d.dim_value for d in document.graph.input[0].type.tensor_type.shape.dim] == [0, WIDTH]
    names = {"input_mask": "attention_mask", "segment_ids": "token_type_ids"}
    for node in [*document.graph.input, *document.graph.node]:
        for slot in [node] if isinstance(node, onnx.ValueInfoProto) else []:
            slot.name = names.get(slot.name, slot.name)
        if isinstance(node, onnx.NodeProto):
            node.input[:] = [names.get(i, i) for i in node.input]
    onnx.save(document, tmp_path / "model.onnx")
    assert np.abs(loaded("onnxruntime", tmp_path).predict(batch) - expected).max() < TOLERANCE


def test_the_int8_file_is_as_the_official_one(
    tensors: dict[str, Any], batch: Batch, expected: Any, tmp_path: Path
) -> None:
    write_config(tmp_path / "bert_config.json", SMALL)
    layers = [f"bert.encoder.layer.{n}.{part}.dense" for n in range(3) for part in ("intermediate", "output")]
    write_int8_onnx(tmp_path / FAKE_QUANT, SMALL, tensors, dict.fromkeys(layers, 6.0))
    onnx.checker.check_model(tmp_path / FAKE_QUANT, full_check=True)
    graph = onnx.load(tmp_path / FAKE_QUANT).graph
    assert [i.name for i in graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 2 * len(layers)
    answers = loaded("onnxruntime", tmp_path, dtype="int8").predict(batch)
    assert TOLERANCE < np.abs(answers - expected).max() < 0.2


def test_the_onnx_file_is_as_the_official_one(model: Path) -> None:
    onnx.checker.check_model(model / "model.onnx", full_check=True)
    graph = onnx.load(model / "model.onnx").graph
    assert [i.name for i in graph.input] == ["input_ids", "input_mask", "segment_ids"]
    assert {i.type.tensor_type.elem_type for i in graph.input} == {onnx.TensorProto.INT64}
    assert [o.name for o in graph.output] == ["output_start_logits", "output_end_logits"]


def test_a_frozen_graph_of_fixed_sizes(tensors: dict[str, Any], batch: Batch, expected: Any, tmp_path: Path) -> None:
    """The official graph takes one row of 384 tokens; three rows leave a last part to fill up."""
    write_config(tmp_path / "bert_config.json", SMALL)
    for rows in (1, 3):
        write_tensorflow(tmp_path / "model.pb", SMALL, tensors, sequence=WIDTH, batch=rows)
        backend = loaded("tensorflow", tmp_path)
        assert (backend.rows, backend.length) == (rows, WIDTH)
        assert np.abs(backend.predict(batch) - expected).max() < TOLERANCE


def test_the_frozen_graph_is_as_the_official_one(model: Path) -> None:
    definition = tf.compat.v1.GraphDef.FromString((model / "model.pb").read_bytes())
    nodes = {node.name: node for node in definition.node}
    for name in ("input_ids", "input_mask", "segment_ids"):
        assert (nodes[name].op, nodes[name].attr["dtype"].type) == ("Placeholder", tf.int32.as_datatype_enum)
    kernel = nodes["bert/encoder/layer_2/intermediate/dense/kernel"]
    assert (kernel.op, tf.make_ndarray(kernel.attr["value"].tensor).shape) == ("Const", (48, 96))
    assert "logits" in nodes


def test_bfloat16_is_close(model: Path, batch: Batch, expected: Any) -> None:
    answers = loaded("pytorch", model, dtype="bfloat16").predict(batch)
    assert TOLERANCE < np.abs(answers - expected).max() < 0.1


def test_surplus_tensors_of_the_official_file_are_passed_over(
    model: Path, batch: Batch, expected: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(model / "model.pytorch", weights_only=True)
    state["bert.pooler.dense.weight"] = torch.zeros(48, 48)
    state["bert.embeddings.position_ids"] = torch.arange(40)[None]
    write_config(tmp_path / "bert_config.json", SMALL)
    torch.save(state, tmp_path / "model.pytorch")
    assert np.abs(loaded("pytorch", tmp_path).predict(batch) - expected).max() < TOLERANCE
    assert "passed over" not in capfd.readouterr().err
    state["cls.predictions.bias"] = torch.zeros(50)
    torch.save(state, tmp_path / "model.pytorch")
    assert np.abs(loaded("pytorch", tmp_path).predict(batch) - expected).max() < TOLERANCE
    assert "model.pytorch: unknown to this model and passed over: cls.predictions.bias" in capfd.readouterr().err


def _renamed(path: Path, names: list[str]) -> None:
    """An ONNX file with other names of its outputs, in this order."""
    document = onnx.load(path)
    old = {output.name: new for output, new in zip(document.graph.output, names, strict=True)}
    for node in document.graph.node:
        node.output[:] = [old.get(name, name) for name in node.output]
    for output in document.graph.output:
        output.name = old[output.name]
    onnx.save(document, path)


def test_outputs_of_other_names_in_the_official_order(model: Path, batch: Batch, expected: Any, tmp_path: Path) -> None:
    for name in ("model.onnx", "bert_config.json"):
        shutil.copy(model / name, tmp_path)
    _renamed(tmp_path / "model.onnx", ["start_logits", "2042"])
    assert np.abs(loaded("onnxruntime", tmp_path).predict(batch) - expected).max() < TOLERANCE
    _renamed(tmp_path / "model.onnx", ["output_end_logits", "2042"])  # half of the names say another order
    with pytest.raises(InputError, match=r"outputs \['output_end_logits', '2042'\]; expected"):
        loaded("onnxruntime", tmp_path)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("words", [SMALL.vocab_size - 1, SMALL.vocab_size + 1])
def test_a_table_of_another_number_of_words_is_named(
    words: int, name: str, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Else its words would be other ones than the vocabulary's."""
    for file in model.iterdir():
        shutil.copy(file, tmp_path)
    write_config(tmp_path / "bert_config.json", replace(SMALL, vocab_size=words))
    with pytest.raises(InputError, match=r"of one model") as caught:
        loaded(name, tmp_path)
    assert str(tmp_path / "model.") in str(caught.value)
    assert "Non-zero status code" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["onnxruntime", "tensorflow"])
def test_logits_that_are_not_finite_are_named(name: str, tensors: dict[str, Any], model: Path, tmp_path: Path) -> None:
    write = {"onnxruntime": write_onnx, "tensorflow": write_tensorflow}[name]
    spoilt = {**tensors, "qa_outputs.bias": np.full(2, np.nan, np.float32)}
    write_config(tmp_path / "bert_config.json", SMALL)
    file = tmp_path / ("model.onnx" if name == "onnxruntime" else "model.pb")
    write(file, SMALL, spoilt)
    with pytest.raises(InputError, match="gives numbers that are not finite for one row of 8 tokens"):
        loaded(name, tmp_path)


def test_outputs_of_another_form_are_named() -> None:
    for shape in ((1, 2, 8), (1, 8, 3), (8, 2)):
        with pytest.raises(InputError, match=rf"m: gives \[{', '.join(map(str, shape))}\] for one row of 8 tokens"):
            check_outputs(Path("m"), np.zeros(shape), 8)


def test_names_and_sizes_of_bert_large() -> None:
    config = TheirConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, num_labels=2
    )
    with torch.device("meta"):
        theirs = TheirBert(config).state_dict()
    assert {k: tuple(v.shape) for k, v in theirs.items()} == weight_shapes(BertConfig())
    # Devlin et al.'s 340 M has the pooler and the two heads of pre-training, which this task has not.
    assert sum(int(np.prod(shape)) for shape in weight_shapes(BertConfig()).values()) == 334_094_338


def _drop(state: dict[str, Any]) -> None:
    del state["bert.encoder.layer.1.output.dense.bias"]


def _reshape(state: dict[str, Any]) -> None:
    state["qa_outputs.weight"] = torch.zeros(3, 48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, r"'bert.encoder.layer.1.output.dense.bias' \[48\] is missing"),
        (_reshape, r"'qa_outputs.weight' has shape \[3, 48\], expected \[2, 48\]"),
    ],
)
def test_weights_of_another_shape_are_named(
    change: Callable[[dict[str, Any]], None], message: str, model: Path, tmp_path: Path
) -> None:
    state = torch.load(model / "model.pytorch", weights_only=True)
    change(state)
    torch.save(state, tmp_path / "model.pytorch")
    write_config(tmp_path / "bert_config.json", SMALL)
    with pytest.raises(InputError, match=message) as caught:
        loaded("pytorch", tmp_path)
    assert str(tmp_path / "model.pytorch") in str(caught.value)


def test_an_onnx_file_of_another_model_is_named(tmp_path: Path) -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    document = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(document, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"inputs \['x'\], outputs \['y'\]; expected inputs \['input_ids'"):
        loaded("onnxruntime", tmp_path)


def test_a_frozen_graph_of_another_model_is_named(tmp_path: Path) -> None:
    graph = tf.Graph()
    with graph.as_default():
        tf.compat.v1.placeholder(tf.int32, name="input_ids")
    (tmp_path / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(InputError, match="has no tensor input_mask:0, segment_ids:0, logits:0"):
        loaded("tensorflow", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        (json.dumps(asdict(SMALL) | {"hidden_size": "48"}), "'hidden_size' is '48', expected a positive"),
        (json.dumps(asdict(replace(SMALL, num_attention_heads=5))), "48 is not a multiple of num_attention"),
    ],
)
def test_a_wrong_config_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bert_config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / "bert_config.json")


def test_without_a_config_the_model_is_bert_large(tmp_path: Path) -> None:
    assert read_config(tmp_path / "bert_config.json") == BertConfig()


@pytest.mark.parametrize("name", BACKENDS)
def test_an_unknown_device_or_dtype_is_an_error(name: str, model: Path) -> None:
    with pytest.raises(InputError, match="device 'tpu': use cpu"):
        loaded(name, model, devices=("tpu",))
    with pytest.raises(InputError, match="dtype 'int4'"):
        loaded(name, model, dtype="int4")


def test_tensors_that_do_not_fit_are_not_written(tensors: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tensors to write: tensor 'bert\.encoder\.layer\.3"):
        write_onnx(tmp_path / "model.onnx", replace(SMALL, num_hidden_layers=4), tensors)


def test_nothing_is_padded(batch: Batch) -> None:
    tokens, packed = backend_pytorch.pack(batch)
    assert tokens.shape == (3, sum(LENGTHS))
    assert packed.starts.diff().tolist() == list(LENGTHS)
    assert packed.longest == max(LENGTHS)


@pytest.mark.parametrize("longest", [40, 96, 384])
def test_what_a_gpu_warms_up_with_fits_the_table_of_positions(longest: int) -> None:
    for lengths in backend_pytorch._WARM_UP:
        fitted = backend_pytorch.fitting(lengths, longest)
        assert max(fitted) <= longest
        assert sum(fitted) >= sum(lengths), "the code is made for as many tokens"
        assert fitted == lengths or longest < max(lengths)


def test_a_gpus_answers_come_with_its_event(batch: Batch) -> None:
    logits = torch.arange(2.0 * sum(LENGTHS)).reshape(-1, 2)
    calls = []

    class Event:
        def synchronize(self) -> None:
            calls.append(1)

    answers = backend_pytorch.finish(Event(), logits, batch)
    assert calls
    assert answers.shape == (len(LENGTHS), WIDTH, 2)
    assert (answers[0, : LENGTHS[0]] == logits[: LENGTHS[0]].numpy()).all()
    assert (answers[1, LENGTHS[1] :] == PADDING).all()
