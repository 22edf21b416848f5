"""Writes the miniature's files: `data/raw` as KiTS19, `model/` in each official format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_3d_unet.config import FILE, UNetConfig, write_config
from bench_3d_unet.official import CHECKPOINT, ONNX, ONNX_ONE, SAVED_MODEL, TORCHSCRIPT
from bench_3d_unet.standins import WINDOW, formats, generate
from loadgen.harness.standins.making import made_once, version_of, write_with

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.npz"
SOURCES = (
    WEIGHTS,
    *(HERE.parent / f"{name}.py" for name in ("config", "preprocess", "kits", "prepared")),
    *(HERE / f"{name}.py" for name in ("__init__", "generate", "formats", "format_tensorflow")),
)
"""All that the files follow from."""


def prepare(folder: Path) -> None:
    """Fill `folder/data/raw`, and `folder/model` with the sizes; at once if an earlier call of this version did.

    The weights are made when a backend wants them, by `write_weights`.
    """
    made_once(folder, version_of(*SOURCES), _make)


def _make(folder: Path) -> None:
    for file in _weights(folder):
        file.parent.mkdir(parents=True, exist_ok=True)  # a backend's file is made in a folder that is there
        file.unlink(missing_ok=True)  # of another version
    generate.write(folder / "data" / "raw")
    write_config(folder / "model" / FILE, read_weights()[0])


def _weights(folder: Path) -> list[Path]:
    return [folder / "model" / name for name in (ONNX, ONNX_ONE, CHECKPOINT, TORCHSCRIPT, SAVED_MODEL)]


def write_weights(path: Path) -> None:
    """The committed weights as the official file of that name. Raises InputError as `find_writer`."""
    write_with(formats.WRITERS, path, *read_weights())


def read_weights() -> tuple[UNetConfig, dict[str, npt.NDArray[np.float32]]]:
    """The committed weights by their official names, and the sizes that follow from their shapes."""
    with np.load(WEIGHTS) as stored:
        tensors = {name: stored[name].astype(np.float32) for name in stored.files}
    blocks = [name.removesuffix(".conv2.0.weight") for name in tensors if name.endswith(".conv2.0.weight")]
    down = [block for block in blocks if not block.startswith("upsample.")]  # the finest level first
    return UNetConfig(tuple(len(tensors[f"{block}.conv2.1.bias"]) for block in down), WINDOW), tensors
