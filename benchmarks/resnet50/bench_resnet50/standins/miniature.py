"""The `mini` profile: its files are `data/` as ImageNet's validation set, `model/` in each official format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.standins import SIZES, generate
from bench_resnet50.standins.formats import WRITERS
from loadgen.harness.standins.making import made_once, version_of, write_with

WEIGHTS = Path(__file__).with_name("weights.npz")
_SOURCES = [WEIGHTS, Path(generate.__file__), *sorted(WEIGHTS.parent.glob("format*.py"))]


def prepare(folder: Path) -> None:
    """Fill `folder/data`, and `folder/model` with the sizes only: `write_weights` makes what a backend reads.

    At once if an earlier call of this version did.
    """
    made_once(folder, version_of(*_SOURCES), _make)


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


def read_weights() -> tuple[ResNetConfig, dict[str, npt.NDArray[np.float32]]]:
    """The committed weights by torchvision's names, and the sizes that follow from their shapes."""
    with np.load(WEIGHTS) as stored:
        tensors = {name: stored[name].astype(np.float32) for name in stored.files}
    blocks = [name.split(".")[0] for name in tensors if name.endswith("conv1.weight") and name.startswith("layer")]
    config = ResNetConfig(
        layers=tuple(blocks.count(stage) for stage in sorted(set(blocks))),
        width=len(tensors["conv1.weight"]),
        classes=len(tensors["fc.bias"]),
        image=SIZES["image"],
    )
    return config, tensors
