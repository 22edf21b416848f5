"""The `mini` profile: its files are `data/` as OpenImages, `model/` in each official format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_retinanet.config import ANCHORS, FILE, HEADS, RetinaNetConfig, write_config
from bench_retinanet.standins import SIZES, generate
from bench_retinanet.standins.formats import WRITERS
from loadgen.harness.standins.making import made_once, version_of, write_with

WEIGHTS = Path(__file__).with_name("weights.npz")
_SOURCES = [WEIGHTS, Path(generate.__file__), *sorted(WEIGHTS.parent.glob("format*.py"))]
_ANCHOR = 8
"""Side in pixels of the smallest anchor: 32 of 800 pixels is as much as 6 of 160."""


# Twin of: benchmarks/resnet50/bench_resnet50/standins/miniature.py::prepare
def prepare(folder: Path) -> None:
    """Fill `folder/data`, and `folder/model` with the sizes only: `write_weights` makes what a backend reads.

    At once if an earlier call of this version did.
    """
    made_once(folder, version_of(*_SOURCES), _make)


# Twin of: benchmarks/resnet50/bench_resnet50/standins/miniature.py::_make
def _make(folder: Path) -> None:
    generate.write(folder / "data")
    model = folder / "model"
    model.mkdir(exist_ok=True)
    for file in model.iterdir():  # of another version
        file.unlink()
    write_config(model / FILE, read_weights()[0])


def write_weights(path: Path) -> None:
    """The trained weights as the official file of that name. Raises InputError as `making.find_writer`."""
    write_with(WRITERS, path, *read_weights())


def read_weights() -> tuple[RetinaNetConfig, dict[str, npt.NDArray[np.float32]]]:
    """The committed weights by the official names, and the sizes that follow from their shapes."""
    with np.load(WEIGHTS) as stored:
        tensors = {name: stored[name].astype(np.float32) for name in stored.files}
    return _sizes(tensors), tensors


def _sizes(tensors: dict[str, npt.NDArray[np.float32]]) -> RetinaNetConfig:
    body, head = "backbone.body", "head.classification_head"
    blocks = [name.split(".")[2] for name in tensors if name.startswith(f"{body}.layer") and "conv1" in name]
    inner, inputs, *_ = tensors[f"{body}.layer1.0.conv2.weight"].shape
    convolutions = [name for name in tensors if name.startswith(f"{head}.conv.") and name.endswith("weight")]
    return RetinaNetConfig(
        layers=tuple(blocks.count(stage) for stage in sorted(set(blocks))),
        stem=len(tensors[f"{body}.conv1.weight"]),
        inner=inner,
        groups=inner // inputs,
        channels=len(tensors["backbone.fpn.layer_blocks.0.weight"]),
        convolutions=len(convolutions),
        classes=len(tensors[f"{head}.{HEADS['classification_head']}.bias"]) // ANCHORS,
        image=SIZES["image"],
        anchor=_ANCHOR,
    )
