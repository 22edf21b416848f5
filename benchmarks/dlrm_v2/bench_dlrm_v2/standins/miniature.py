"""Writes the miniature's files: `data/` as day 23, `model/` as a torchsnapshot directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_dlrm_v2.config import DlrmConfig, config_of
from bench_dlrm_v2.official import SNAPSHOT
from bench_dlrm_v2.standins import generate
from bench_dlrm_v2.standins.formats import Layout, write_snapshot
from loadgen.harness.standins.making import made_once, version_of

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.npz"
SOURCES = (
    WEIGHTS,
    HERE.parent / "config.py",
    HERE.parent / "official.py",
    *(HERE / f"{name}.py" for name in ("generate", "day_23", "formats", "miniature")),
)
"""All that the files follow from."""
LAYOUT = Layout(piece_rows=16, large_rows=200, batched_bytes=256)
"""Tables of 200 rows, the largest, are in 8 parts of 25 rows and 16 files, as the official ones of 40,000,000 are in 8
parts of 5,000,000 and 40 files. Only a few tensors share a file."""


def prepare(folder: Path) -> None:
    """Fill `folder/data` and `folder/model`; at once if an earlier call of this version did."""
    made_once(folder, version_of(*SOURCES), _make)


def _make(folder: Path) -> None:
    shutil.rmtree(folder / "model" / SNAPSHOT, ignore_errors=True)  # of another version
    generate.write(folder / "data")
    write_snapshot(folder / "model" / SNAPSHOT, *read_weights(), LAYOUT)


def read_weights() -> tuple[DlrmConfig, dict[str, npt.NDArray[np.float32]]]:
    """The committed weights by their official names, and the sizes that follow from their shapes."""
    with np.load(WEIGHTS) as stored:
        tensors = {name: stored[name].astype(np.float32) for name in stored.files}
    return config_of({name: value.shape for name, value in tensors.items()}, str(WEIGHTS)), tensors
