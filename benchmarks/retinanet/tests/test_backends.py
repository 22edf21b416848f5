"""Both backends: the same detections from the same weights, whatever the batch, and what they say to files that do not
fit."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from bench_retinanet.benchmark import BENCHMARK
from bench_retinanet.config import FILE, RetinaNetConfig, read_config, weight_shapes, write_config
from bench_retinanet.dataset import Batch
from bench_retinanet.official import INPUT, ONNX, OUTPUTS, PYTORCH
from bench_retinanet.standins.formats import OFFICIAL, WRITERS
from loadgen.contracts import BackendOptions, InputError

NAMES = list(BENCHMARK.backends)
FILES = {name: spec.file for name, spec in BENCHMARK.backends.items()}
Load = Callable[..., Any]
Split = Callable[[Any], list[Any]]
MADE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("make_golden.py"))))


def close(found: Any, other: Any) -> bool:
    """The same detections, but for rounding."""
    return (
        found.labels.tolist() == other.labels.tolist()
        and bool(np.abs(found.scores - other.scores).max(initial=0) < 1e-5)
        and bool(np.abs(found.boxes - other.boxes).max(initial=0) < 2e-3)
    )


@pytest.fixture
def expected(small_files: Path, small_batch: Batch, load: Load, split: Split) -> list[Any]:
    return split(load("pytorch", small_files).submit(small_batch).result())


def test_the_small_network_detects_enough_to_compare(expected: list[Any], small_config: RetinaNetConfig) -> None:
    counts = [len(found.labels) for found in expected]
    assert counts[2] == 0, "an image in which nothing is"
    assert all(40 < count < 300 for count in counts[:2] + counts[3:])
    assert set(np.concatenate([found.labels for found in expected])) == set(range(small_config.classes))


@pytest.mark.parametrize("threads", [1, 2])
def test_backends_agree(
    threads: int, small_files: Path, small_batch: Batch, expected: Any, load: Load, split: Split
) -> None:
    found = split(load("onnxruntime", small_files, threads=threads).submit(small_batch).result())
    assert all(close(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_does_not_depend_on_its_batch(
    name: str, small_files: Path, small_batch: Batch, expected: Any, load: Load, split: Split
) -> None:
    backend = load(name, small_files)
    for rows in ([3], [2], [1, 0], [2, 2, 3]):
        found = split(backend.submit(Batch(small_batch.source, np.array(rows))).result())
        assert all(close(ours, expected[row]) for ours, row in zip(found, rows, strict=True))


def test_the_official_file_takes_one_image(
    small: Path, small_tensors: dict[str, Any], small_batch: Batch, expected: Any, load: Load, split: Split
) -> None:
    OFFICIAL[ONNX].write(small / ONNX, read_config(small / FILE), small_tensors)
    graph = onnx.load(small / ONNX).graph
    assert [node.name for node in graph.output] == list(OUTPUTS)
    assert [size.dim_value for size in graph.input[0].type.tensor_type.shape.dim] == [1, 3, 160, 160]
    found = split(load("onnxruntime", small).submit(small_batch).result())
    assert all(close(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("writers", [OFFICIAL, WRITERS], ids=["official", "any number"])
def test_onnx_files_are_valid(writers: Any, tmp_path: Path, small_config: RetinaNetConfig, small_tensors: Any) -> None:
    writers[ONNX].write(tmp_path / ONNX, small_config, small_tensors)
    onnx.checker.check_model(str(tmp_path / ONNX), full_check=True)
    assert onnx.load(tmp_path / ONNX).opset_import[0].version == 13


def reordered(graph: Any) -> None:
    outputs = [graph.output[place] for place in (2, 0, 1)]
    del graph.output[:]
    graph.output.extend(outputs)


def test_outputs_go_by_name(small: Path, small_batch: Batch, expected: Any, load: Load, split: Split) -> None:
    model = onnx.load(small / ONNX)
    reordered(model.graph)
    onnx.save(model, small / ONNX)
    found = split(load("onnxruntime", small).submit(small_batch).result())
    assert all(close(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_a_file_that_pytorch_exported_from_torchvisions_model(tmp_path: Path, load: Load, split: Split) -> None:
    """Nothing of ours wrote it, and torchvision's own detections are the truth."""
    write_config(tmp_path / FILE, RetinaNetConfig(classes=MADE.SMALL_CLASSES, image=MADE.SMALL_SIDE))
    (tmp_path / ONNX).write_bytes(MADE.EXPORT.read_bytes())
    found = split(load("onnxruntime", tmp_path).submit(Batch(MADE.small_pictures())).result())
    golden = json.loads(MADE.FILE.read_text())["exported"]
    assert [len(image["labels"]) for image in golden][-1] == 0 < min(len(image["labels"]) for image in golden[:-1])
    for ours, theirs in zip(found, golden, strict=True):
        order, other = (np.argsort(labels, kind="stable") for labels in (ours.labels, theirs["labels"]))
        assert ours.labels[order].tolist() == sorted(theirs["labels"])  # of two classes scores may be nearly equal
        assert ours.scores[order] == pytest.approx(np.array(theirs["scores"])[other], abs=1e-5)
        assert ours.boxes[order] == pytest.approx(np.array(theirs["boxes"]).reshape(-1, 4)[other], abs=0.01)


@pytest.mark.parametrize("pairs", [[(4, 2)], [(4, 2), (5, 2)], [(4, 2), (4, 3)]])
def test_backends_agree_where_all_scores_are_equal(
    pairs: list[tuple[int, int]], small: Path, small_tensors: Any, small_batch: Batch, load: Load, split: Split
) -> None:
    """Some hundred boxes of one score over each other: which stay depends on their order alone. pairs: of an anchor
    and a class, which are found everywhere."""
    config, last = read_config(small / FILE), "head.classification_head.cls_logits"
    bias = np.full((9, config.classes), -15, np.float32)
    bias[tuple(zip(*pairs, strict=True))] = 0.5
    tensors = {**small_tensors, f"{last}.bias": bias.ravel(), f"{last}.weight": 0 * small_tensors[f"{last}.weight"]}
    for name, writer in WRITERS.items():
        writer.write(small / name, config, tensors)
    ours, theirs = (split(load(name, small).submit(small_batch).result()) for name in NAMES)
    assert all(np.ptp(found.scores) < 1e-6 and len(found.labels) > 200 for found in ours)
    assert all(close(found, other) for found, other in zip(ours, theirs, strict=True))


def input_renamed(graph: Any) -> None:
    graph.node.append(helper.make_node("Identity", ["other"], [INPUT]))
    graph.input[0].name = "other"
    graph.node.insert(0, graph.node.pop())


def output_renamed(graph: Any) -> None:
    graph.node.append(helper.make_node("Identity", ["labels"], ["classes"]))
    graph.output[2].name = "classes"


def other_size(graph: Any) -> None:
    graph.input[0].type.tensor_type.shape.dim[2].dim_value = 192


def fixed_at_four(graph: Any) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


def boxes_for_scores(graph: Any) -> None:
    for node in graph.node:
        node.output[:] = ["kept" if name == "scores" else name for name in node.output]
    graph.node.append(helper.make_node("Identity", ["boxes"], ["scores"]))
    graph.output[1].CopyFrom(helper.make_tensor_value_info("scores", 1, ["batch", 300, 4]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (input_renamed, r"inputs \['other'\], .*expected inputs \['images'\]"),
        (output_renamed, r"outputs \['boxes', 'scores', 'classes'\]; expected"),
        (other_size, r"images is \[None, 3, 192, 160\], expected \[1 or any number, 3, 160, 160\]"),
        (fixed_at_four, r"images is \[4, 3, 160, 160\], expected \[1 or any number"),
        (boxes_for_scores, r"boxes, scores and labels are \[\[2, 300, 4\], \[2, 300, 4\], \[2, 300\]\] for 2 image"),
    ],
)
def test_an_onnx_file_of_another_interface_is_refused(change: Any, message: str, small: Path, load: Load) -> None:
    model = onnx.load(small / ONNX)
    change(model.graph)
    onnx.save(model, small / ONNX)
    with pytest.raises(InputError, match=rf"resnext50_32x4d_fpn\.onnx: .*{message}.*use the official"):
        load("onnxruntime", small)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_loaded_is_told(name: str, small_files: Path, load: Load) -> None:
    backend = load(name, small_files)
    backend.close()
    loaded = backend.load()
    assert (loaded.device.split()[0], loaded.dtype) == ("cpu", "float32")
    assert all(version[0].isdecimal() for version in loaded.versions.values())


def test_bfloat16_finds_nearly_the_same(
    small_files: Path, small_batch: Batch, expected: Any, load: Load, split: Split
) -> None:
    found = split(load("pytorch", small_files, dtype="bfloat16").submit(small_batch).result())
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours.labels) == pytest.approx(len(theirs.labels), rel=0.2)
        assert ours.scores[:10] == pytest.approx(theirs.scores[:10], abs=0.03)


def test_onnx_runtime_computes_in_what_the_file_holds(small_files: Path) -> None:
    backend = BENCHMARK.backends["onnxruntime"].name.partition(":")[0]
    module = __import__(backend, fromlist=["Backend"])
    with pytest.raises(InputError, match="dtype 'bfloat16': the file holds float32"):
        module.Backend(BackendOptions(model=small_files, dtype="bfloat16"))


@pytest.mark.parametrize("change", [{"classes": 7}, {"channels": 24}, {"layers": (1, 1, 1, 1)}, {"convolutions": 2}])
def test_weights_of_other_sizes_are_refused(change: dict[str, Any], small: Path, load: Load) -> None:
    write_config(small / FILE, replace(read_config(small / FILE), **change))
    with pytest.raises(InputError, match=rf"{PYTORCH}: tensor '.*: use the weights and {FILE} of one model"):
        load("pytorch", small)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("more", [-1, 1])
def test_another_number_of_classes_is_refused(more: int, name: str, small: Path, load: Load) -> None:
    """As the 80 of COCO's models, whose labels would be those of other things."""
    config = read_config(small / FILE)
    write_config(small / FILE, replace(config, classes=config.classes + more))
    with pytest.raises(InputError, match=rf"{re.escape(FILES[name])}: .*{9 * (config.classes + more)}") as caught:
        load(name, small)
    assert FILE in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(name: str, small: Path, load: Load) -> None:
    (small / FILES[name]).unlink()
    with pytest.raises(InputError, match=f"{FILES[name]}: no such file. Put the official"):
        load(name, small)


@pytest.mark.parametrize("writer", [*OFFICIAL.values(), *WRITERS.values()])
def test_writers_refuse_tensors_of_another_model(writer: Any, tmp_path: Path, small_tensors: Any) -> None:
    with pytest.raises(InputError, match="tensors to write: tensor"):
        writer.write(tmp_path / "x", RetinaNetConfig(), small_tensors)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"layers": [1, 2]}', "'layers' is .*expected a list of three or more"),
        ('{"layers": [1, 2, 0, 1]}', "'layers' is 0, expected a positive whole number"),
        ('{"layers": [1, 1, 1, 1], "stem": "x"}', "'stem' is 'x', expected a positive whole number"),
        ("[]", "holds no JSON object"),
    ],
)
def test_wrong_sizes_are_named(document: str, message: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(document)
    with pytest.raises(InputError, match=f"{FILE}: {message}"):
        read_config(tmp_path / FILE)


def test_the_official_sizes_need_no_file(tmp_path: Path) -> None:
    """Counted in the official checkpoint: 301 tensors of 37,197,100 values, batch normalisation's included."""
    shapes = weight_shapes(read_config(tmp_path / FILE))
    assert (len(shapes), sum(int(np.prod(shape)) for shape in shapes.values())) == (301, 37_197_100)
    assert shapes["head.classification_head.cls_logits.weight"] == (2376, 256, 3, 3)
    assert shapes["backbone.body.layer3.5.conv2.weight"] == (512, 16, 3, 3)


def test_threads_are_used_as_asked(small_files: Path, load: Load) -> None:
    before = torch.get_num_threads()
    try:
        load("pytorch", small_files, threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
