"""Writes RetinaNet as an ONNX file, with all that comes behind the heads: float32 `images` -> `boxes`, `scores`,
`labels`, as the official file has them.

That one takes one image and gives as many rows as there are detections. For any number of images a file gives 300 rows
of each: those with a score of 0 are none.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench_retinanet.anchors import CLIP, level_anchors
from bench_retinanet.config import (
    HEADS,
    NORM_EPSILON,
    Bottleneck,
    RetinaNetConfig,
    Tensors,
    bottlenecks,
    check_weights,
    grids,
)
from bench_retinanet.official import BOXES, INPUT, LABELS, SCORES
from bench_retinanet.postprocess import MOST, OVERLAP, PER_LEVEL, THRESHOLD
from bench_retinanet.preprocess import DEVIATION, MEAN

if TYPE_CHECKING:
    from onnx import GraphProto

OPSET = 13
"""As the official file."""
_IR_VERSION = 7  # the one of opset 13, so that older runtimes read the file too


def write_onnx(path: Path, config: RetinaNetConfig, tensors: Tensors, batch: int | None = None) -> None:
    """batch: 1 as officially; None takes any number of images. Needs onnx, not torch.

    Raises InputError as `check_weights`."""
    import onnx
    from onnx import TensorProto, helper

    check_weights({name: value.shape for name, value in tensors.items()}, config, "tensors to write")
    count: list[int | str] = ["detections"] if batch == 1 else ["batch", MOST]
    outputs = [
        helper.make_tensor_value_info(BOXES, TensorProto.FLOAT, [*count, 4]),
        helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, count),
        helper.make_tensor_value_info(LABELS, TensorProto.INT64, count),
    ]
    shape = [batch or "batch", 3, config.image, config.image]
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)]
    empty = helper.make_graph([], "retinanet", inputs, outputs)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(empty, opset_imports=[opset], ir_version=_IR_VERSION)
    graph = _Graph(model.graph, tensors)
    scores, boxes, labels = _candidates(graph, config)
    _suppress(graph, scores, boxes, labels, one=batch == 1)
    onnx.save_model(model, str(path))


class _Graph:
    """Adds nodes and constants to a `GraphProto`; every method gives the name of its result."""

    def __init__(self, graph: GraphProto, tensors: Tensors) -> None:
        self.graph, self.tensors = graph, tensors
        self._known: set[str] = set()

    def node(self, operator: str, *inputs: str | npt.NDArray[Any], output: str = "", **attributes: Any) -> str:
        """inputs: names, or constants without one."""
        return self.nodes(operator, *inputs, outputs=[output or f"{operator}_{len(self.graph.node)}"], **attributes)[0]

    def nodes(self, operator: str, *inputs: str | npt.NDArray[Any], outputs: list[str], **attributes: Any) -> list[str]:
        from onnx import helper

        place = f"{operator}_{len(self.graph.node)}"
        names = [
            given if isinstance(given, str) else self.constant(f"{place}.{number}", given)
            for number, given in enumerate(inputs)
        ]
        self.graph.node.append(helper.make_node(operator, names, outputs, name=place, **attributes))
        return outputs

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        if name not in self._known:  # the heads' weights serve every level
            self._known.add(name)
            self.graph.initializer.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, np.asarray(self.tensors[name], np.float32))

    def convolution(self, x: str, name: str, stride: int = 1, groups: int = 1) -> str:
        """With its bias, if it has one."""
        parts = [part for part in (f"{name}.weight", f"{name}.bias") if part in self.tensors]
        size = self.tensors[parts[0]].shape[-1]
        shape: dict[str, Any] = {
            "kernel_shape": [size] * 2,
            "strides": [stride] * 2,
            "pads": [size // 2] * 4,
            "group": groups,
        }
        return self.node("Conv", x, *(self.weight(part) for part in parts), **shape)

    def normalised(self, x: str, name: str, norm: str, stride: int = 1, groups: int = 1) -> str:
        """A convolution and batch normalisation, which runtimes fold into the weights."""
        x = self.convolution(x, name, stride, groups)
        parts = [self.weight(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self.node("BatchNormalization", x, *parts, epsilon=NORM_EPSILON)


def _body(graph: _Graph, config: RetinaNetConfig) -> list[str]:
    """Features of the last three stages, finest first."""
    mean, deviation = (np.array(values, np.float32)[:, None, None] for values in (MEAN, DEVIATION))
    x = graph.node("Div", graph.node("Sub", INPUT, mean), deviation)
    x = graph.node("Relu", graph.normalised(x, "backbone.body.conv1", "backbone.body.bn1", stride=2))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    found: dict[str, str] = {}
    for block in bottlenecks(config):
        x = _bottleneck(graph, x, block, config.groups)
        found[block.name.split(".")[-2]] = x
    return list(found.values())[-3:]


def _bottleneck(graph: _Graph, x: str, block: Bottleneck, groups: int) -> str:
    name = block.name
    inner = graph.node("Relu", graph.normalised(x, f"{name}.conv1", f"{name}.bn1"))
    inner = graph.node("Relu", graph.normalised(inner, f"{name}.conv2", f"{name}.bn2", block.stride, groups))
    inner = graph.normalised(inner, f"{name}.conv3", f"{name}.bn3")
    if block.projects:
        x = graph.normalised(x, f"{name}.downsample.0", f"{name}.downsample.1", block.stride)
    return graph.node("Relu", graph.node("Add", inner, x))


def _pyramid(graph: _Graph, stages: list[str]) -> list[str]:
    """Features of the five levels, finest first."""
    fpn = "backbone.fpn"
    x = graph.convolution(stages[-1], f"{fpn}.inner_blocks.2")
    found = [graph.convolution(x, f"{fpn}.layer_blocks.2")]
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    for number in (1, 0):
        lateral = graph.convolution(stages[number], f"{fpn}.inner_blocks.{number}")
        x = graph.node("Add", lateral, graph.node("Resize", x, "", "", graph.node("Shape", lateral), **nearest))
        found.insert(0, graph.convolution(x, f"{fpn}.layer_blocks.{number}"))
    found.append(graph.convolution(found[-1], f"{fpn}.extra_blocks.p6", stride=2))
    found.append(graph.convolution(graph.node("Relu", found[-1]), f"{fpn}.extra_blocks.p7", stride=2))
    return found


def _head(graph: _Graph, x: str, name: str, convolutions: int) -> str:
    """[n, side, side, 9 * parts]"""
    for number in range(convolutions):
        x = graph.node("Relu", graph.convolution(x, f"head.{name}.conv.{2 * number}"))
    return graph.node("Transpose", graph.convolution(x, f"head.{name}.{HEADS[name]}"), perm=[0, 2, 3, 1])


def _candidates(graph: _Graph, config: RetinaNetConfig) -> list[str]:
    """Scores [n, m], boxes [n, m, 4] and labels [n, m] of all levels' best; a score that fails the threshold is 0."""
    found = []
    for x, anchors, grid in zip(
        _pyramid(graph, _body(graph, config)), level_anchors(config), grids(config), strict=True
    ):
        logits, deltas = (_head(graph, x, name, config.convolutions) for name in HEADS)
        scores = graph.node("Sigmoid", graph.node("Reshape", logits, _ints(0, -1)))
        over = graph.node("Greater", scores, np.array(THRESHOLD, np.float32))
        scores = graph.node("Where", over, scores, np.zeros((), np.float32))
        best = min(PER_LEVEL, len(anchors) * config.classes)
        names = [f"scores_{grid}", f"places_{grid}"]
        scores, places = graph.nodes("TopK", scores, _ints(best), outputs=names, axis=1, largest=1, sorted=1)
        rows = graph.node("Div", places, _ints(config.classes))
        labels = graph.node("Mod", places, _ints(config.classes))
        boxes = _boxes(graph, graph.node("Reshape", deltas, _ints(0, -1, 4)), rows, anchors, config.image)
        boxes = graph.node("Mul", boxes, graph.node("Ceil", _last_axis(graph, scores)))
        found.append((scores, boxes, labels))
    return [graph.node("Concat", *column, axis=1) for column in zip(*found, strict=True)]


def _boxes(graph: _Graph, deltas: str, rows: str, anchors: npt.NDArray[np.float32], image: int) -> str:
    """[n, k, 4] of these rows of [n, anchors, 4]."""
    sides = anchors[:, 2:] - anchors[:, :2]
    deltas = graph.node("GatherND", deltas, _last_axis(graph, rows), batch_dims=1)
    moves, logarithms = (graph.node("Gather", deltas, _ints(*axes), axis=2) for axes in ((0, 1), (2, 3)))
    side, centre = (graph.node("Gather", table, rows) for table in (sides, anchors[:, :2] + sides / 2))
    centre = graph.node("Add", centre, graph.node("Mul", moves, side))
    growth = graph.node("Exp", graph.node("Min", logarithms, np.array(CLIP, np.float32)))
    half = graph.node("Div", graph.node("Mul", growth, side), np.array(2, np.float32))
    boxes = graph.node("Concat", graph.node("Sub", centre, half), graph.node("Add", centre, half), axis=2)
    return graph.node("Clip", boxes, np.zeros((), np.float32), np.array(image, np.float32))


def _suppress(graph: _Graph, scores: str, boxes: str, labels: str, one: bool) -> None:
    """NMS of boxes that are moved apart by class, and the file's outputs. one: of one image."""
    apart = graph.node("ReduceMax", boxes, axes=[1, 2], keepdims=1)
    apart = graph.node("Add", apart, np.ones((), np.float32))
    classes = graph.node("Cast", _last_axis(graph, labels), to=1)
    moved = graph.node("Add", boxes, graph.node("Mul", classes, apart))
    rules = (_ints(MOST), np.array([OVERLAP], np.float32), np.zeros(1, np.float32))
    chosen = graph.node("NonMaxSuppression", moved, graph.node("Unsqueeze", scores, _ints(1)), *rules)
    place = graph.node("Gather", chosen, _ints(0, 2), axis=1)
    columns = {BOXES: boxes, SCORES: scores, LABELS: labels}
    if one:
        for name, column in columns.items():
            graph.node("GatherND", column, place, output=name)
        return
    images, row = _rows(graph, chosen, scores)
    for name, column in columns.items():
        shape = graph.node("Concat", images, _ints(MOST, 4) if name == BOXES else _ints(MOST), axis=0)
        blank = graph.node("ConstantOfShape", shape, value=_blank(name))
        graph.node("ScatterND", blank, row, graph.node("GatherND", column, place), output=name)


def _rows(graph: _Graph, chosen: str, scores: str) -> tuple[str, str]:
    """How many images there are [1], and of each chosen box (image, how many better ones of the image) [m, 2]."""
    image = graph.node("Gather", chosen, np.array(0), axis=1)
    count = graph.node("Gather", graph.node("Shape", scores), _ints(0))
    numbers = graph.node("Range", np.array(0), graph.node("Squeeze", count), np.array(1))
    before = graph.node("Less", graph.node("Unsqueeze", image, _ints(0)), _last_axis(graph, numbers))
    starts = graph.node("ReduceSum", graph.node("Cast", before, to=7), _ints(1), keepdims=0)
    total = graph.node("Squeeze", graph.node("Shape", image))
    number = graph.node("Range", np.array(0), total, np.array(1))
    row = graph.node("Sub", number, graph.node("Gather", starts, image))
    return count, graph.node("Concat", _last_axis(graph, image), _last_axis(graph, row), axis=1)


def _blank(name: str) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.zeros(1, np.int64 if name == LABELS else np.float32))


def _last_axis(graph: _Graph, x: str) -> str:
    return graph.node("Unsqueeze", x, _ints(-1))


def _ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)
