"""Writes the miniature's files: `data/` in LibriSpeech's form, `model/` as the official checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_rnnt.official import MANIFEST
from bench_rnnt.standins import generate
from bench_rnnt.standins.formats import WRITERS
from loadgen.harness.standins.making import made_once, version_of, write_with

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.npz"
SOURCES = (WEIGHTS, HERE.parent / "official.py", *(HERE / f"{name}.py" for name in ("generate", "speech", "formats")))
"""All that the files follow from."""


def prepare(folder: Path) -> None:
    """Fill `folder/data`, and make `folder/model`; at once if an earlier call of this version did.

    The weights are made when a backend wants them, by `write_weights`.
    """
    made_once(folder, version_of(*SOURCES), _make)


def _make(folder: Path) -> None:
    model, data = folder / "model", folder / "data"
    for place in (model, data):
        place.mkdir(exist_ok=True)
    for name in WRITERS:
        (model / name).unlink(missing_ok=True)  # of another version
    (data / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(data / "LibriSpeech", ignore_errors=True)
    generate.write(data, generate.miniature())


def write_weights(path: Path) -> None:
    """The committed weights as the official checkpoint. Raises InputError as `find_writer`."""
    write_with(WRITERS, path, read_weights())


def read_weights() -> dict[str, npt.NDArray[np.float32]]:
    """The committed weights by their own names; they are stored in 16 bits."""
    with np.load(WEIGHTS) as stored:
        return {name: stored[name].astype(np.float32) for name in stored.files}
