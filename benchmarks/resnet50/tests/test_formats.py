"""Files that we write are in the official form; sizes and tensors that do not fit are named."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
import torch

from bench_resnet50.batch import Batch, normalised
from bench_resnet50.benchmark import BENCHMARK
from bench_resnet50.config import FILE, ResNetConfig, read_config, weight_shapes
from bench_resnet50.model import ResNet
from bench_resnet50.official import NCNN, ONNX, TENSORFLOW
from bench_resnet50.standins.format_ncnn import folded, write_ncnn
from bench_resnet50.standins.format_tensorflow import BACKGROUND_LOGIT
from bench_resnet50.standins.formats import WRITERS
from loadgen.contracts import InputError
from loadgen.harness.files import whole_file


def test_every_backend_reads_a_file_that_is_written() -> None:
    assert {spec.file for spec in BENCHMARK.backends.values()} == set(WRITERS)


def test_onnx(small_files: Path, small_batch: Batch) -> None:
    onnx.checker.check_model(small_files / ONNX, full_check=True)
    graph = onnx.load(small_files / ONNX).graph
    assert [i.name for i in graph.input] == ["input_tensor:0"]
    kinds = {o.name: o.type.tensor_type.elem_type for o in graph.output}
    assert kinds == {"ArgMax:0": onnx.TensorProto.INT64, "softmax_tensor:0": onnx.TensorProto.FLOAT}
    session = onnxruntime.InferenceSession(str(small_files / ONNX))
    images = np.ascontiguousarray(normalised(small_batch).transpose(0, 3, 1, 2))
    classes, probabilities = session.run(["ArgMax:0", "softmax_tensor:0"], {"input_tensor:0": images})
    assert probabilities.shape == (5, 11)
    assert (probabilities[:, 0] < 1e-20).all()
    assert (classes == probabilities.argmax(axis=1)).all()


def test_tensorflow(small_files: Path, small_batch: Batch) -> None:
    definition = tf.compat.v1.GraphDef.FromString((small_files / TENSORFLOW).read_bytes())
    nodes = {node.name: node for node in definition.node}
    kinds = {name: nodes[name].op for name in ("input_tensor", "softmax_tensor", "ArgMax")}
    assert kinds == {"input_tensor": "Placeholder", "softmax_tensor": "Softmax", "ArgMax": "ArgMax"}
    assert [d.size for d in nodes["input_tensor"].attr["shape"].shape.dim] == [-1, 36, 36, 3]
    assert nodes["input_tensor"].attr["dtype"].type == tf.float32.as_datatype_enum
    assert nodes["ArgMax"].attr["output_type"].type == tf.int64.as_datatype_enum
    bias = tf.make_ndarray(nodes["fc/bias"].attr["value"].tensor)
    assert bias.shape == (11,)
    assert bias[0] == BACKGROUND_LOGIT
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(definition, name="")
        feed = {"input_tensor:0": normalised(small_batch)}
        classes, probabilities = session.run(["ArgMax:0", "softmax_tensor:0"], feed)
    assert (classes == probabilities.argmax(axis=1)).all()


def test_ncnn(small_files: Path, small_tensors: dict[str, Any]) -> None:
    text = (small_files / NCNN).read_text()
    head, counts, first, *lines = text.splitlines()
    assert head == "7767517"
    assert first.split() == ["Input", "in0", "0", "1", "in0"]
    layers = [line.split() for line in (first, *lines)]
    blobs = [name for words in layers for name in words[4 + int(words[2]) :][: int(words[3])]]
    assert counts == f"{len(layers)} {len(blobs)}"
    assert len(set(blobs)) == len(blobs)
    assert lines[-1].split()[:2] == ["InnerProduct", "out0"]
    assert "layer2.0.conv2 1 1 layer2.0.conv1 layer2.0.conv2 0=16 1=3 3=2 4=1" in text  # v1.5
    weight, bias = folded(small_tensors, "conv1", "bn1")
    start = bytes(4) + weight.tobytes() + bias.tobytes()
    assert (small_files / NCNN).with_suffix(".bin").read_bytes()[: len(start)] == start


def test_ncnns_other_file_has_its_final_name(small_files: Path, small_tensors: dict[str, Any], tmp_path: Path) -> None:
    """Also where the first is written under another, to be complete or not there at all."""
    with whole_file(tmp_path / NCNN) as part:
        write_ncnn(part, read_config(small_files / FILE), small_tensors)
    assert {file.name for file in tmp_path.iterdir()} == {NCNN, NCNN.replace(".param", ".bin")}


@pytest.mark.parametrize("name", WRITERS)
def test_tensors_that_do_not_fit_are_not_written(
    name: str, small_files: Path, small_tensors: dict[str, Any], tmp_path: Path
) -> None:
    deeper = replace(read_config(small_files / FILE), layers=(2, 1, 1))
    with pytest.raises(InputError, match=r"tensors to write: tensor 'layer3\.0\.conv1\.weight'"):
        WRITERS[name].write(tmp_path / name, deeper, small_tensors)
    assert not list(tmp_path.iterdir())


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


SIZES = asdict(ResNetConfig())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("{}", "'layers' is None, expected a list"),
        (json.dumps(SIZES | {"width": "8"}), "'width' is '8', expected a positive"),
        (json.dumps(SIZES | {"layers": []}), r"'layers' is \[\], expected a list"),
        (json.dumps(SIZES | {"layers": [1, 0]}), "'layers' is 0, expected a positive"),
    ],
)
def test_a_wrong_config_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / FILE)


def test_without_a_config_it_is_resnet_50(tmp_path: Path) -> None:
    assert read_config(tmp_path / FILE) == ResNetConfig()
