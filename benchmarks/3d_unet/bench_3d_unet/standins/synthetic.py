"""The `synthetic` profile: the full 3D U-Net with random weights, and volumes of the sizes of KiTS19's 43 cases.

Its speed is a full-size model's on the real work; its answers mean nothing.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_3d_unet.config import FILE, UNetConfig, read_config, weight_shapes, write_config
from bench_3d_unet.official import CASES, SAVED_MODEL
from bench_3d_unet.prepared import INDEX, Facts, spread, write_index, write_volume
from bench_3d_unet.preprocess import SPACING, Volume, normalised
from bench_3d_unet.standins.formats import WRITERS
from bench_3d_unet.standins.generate import phantom
from loadgen.harness.standins.making import check_space, find_writer, tell, write_with, writing

SEED = 1
SIDES = (
    *((192, 384, 384), (192, 384, 384), (256, 448, 448), (320, 320, 320), (256, 320, 320)),
    *((256, 256, 256), (320, 384, 384), (128, 320, 320), (320, 384, 384), (192, 384, 384)),
    *((192, 384, 384), (256, 320, 320), (128, 448, 448), (192, 320, 320), (320, 384, 384)),
    *((192, 320, 320), (192, 320, 320), (192, 384, 384), (256, 320, 320), (320, 448, 448)),
    *((320, 320, 320), (128, 320, 320), (320, 320, 320), (320, 320, 320), (128, 320, 320)),
    *((320, 448, 448), (320, 384, 384), (128, 320, 320), (192, 384, 384), (128, 192, 320)),
    *((192, 384, 384), (320, 256, 256), (320, 320, 320), (384, 320, 320), (320, 448, 448)),
    *((384, 384, 384), (256, 256, 256), (448, 320, 320), (448, 320, 320), (384, 256, 256)),
    *((192, 384, 384), (448, 320, 320), (384, 384, 384)),
)
"""Of each case after preprocessing, from the headers in KiTS19's repository: 8 to 144 windows, 2,761 in all."""
_SCALE = 4
"""A phantom is made so much smaller, and magnified."""
_SMALL = 100_000_000  # bytes of volumes that this process makes sooner than others would start
_VOLUME_BYTES = 1_500_000_000  # of memory that the largest takes while it is made


def prepare(folder: Path) -> None:
    """Fill `folder/data/preprocessed`, and `folder/model` with the sizes only: weights are made when a backend wants
    them. What is there stays.

    Says on stderr how far it is. Raises InputError for a full disk.
    """
    model, data = folder / "model", folder / "data" / "preprocessed"
    if not (model / FILE).is_file():
        with writing((folder / "model" / SAVED_MODEL).parent):
            write_config(model / FILE, UNetConfig())
    if not (data / INDEX).is_file():
        with writing(data):
            write_volumes(data)


def write_volumes(folder: Path) -> None:
    """Preprocessed volumes in the reference's files, without copies as NIfTI; the index comes last."""
    size = 5 * sum(math.prod(sides) for sides in SIDES)  # float32 and uint8
    check_space(folder / INDEX, size)
    tell(f"making {folder}: {len(CASES)} volumes, {size / 1e9:.1f} GB")
    began = time.monotonic()
    jobs = [(folder, number, case, sides) for number, (case, sides) in enumerate(zip(CASES, SIDES, strict=True))]
    index, known = {}, {}
    loud = size > _SMALL
    for done, (entry, sums) in enumerate(spread(_write, jobs, _VOLUME_BYTES if loud else 0), start=1):
        index[entry["case"]], known[entry["case"]] = entry, sums
        if loud:
            tell(f"  {done} of {len(jobs)} volumes, {time.monotonic() - began:.0f} s")
    write_index(folder, CASES, index, known, UNetConfig().window)
    tell(f"  done in {time.monotonic() - began:.0f} s")


def _write(folder: Path, number: int, case: str, sides: tuple[int, int, int]) -> tuple[Facts, Facts]:
    return write_volume(folder, case, magnified(number, sides), np.diag([*SPACING, 1.0]), SPACING)


def magnified(number: int, sides: tuple[int, int, int]) -> Volume:
    """A phantom of these sides: one of a quarter of them with each voxel repeated, and noise."""
    high, deep, wide = (side // _SCALE for side in sides)
    small = phantom(SEED, number, (high, deep, wide), SPACING)
    image, label = (np.kron(part, np.ones([_SCALE] * 3, part.dtype)) for part in (small.image, small.label))
    noise = np.random.default_rng([SEED, number]).standard_normal(image.shape, np.float32)
    return Volume(normalised(image + 20 * noise)[None], label[None])


def write_weights(path: Path, seed: int = SEED) -> None:
    """Random weights as the official file of that name, for the `3d_unet.json` beside it.

    Says on stderr what takes so long. Raises InputError as `find_writer`, or for a full disk.
    """
    find_writer(WRITERS, path)
    beside = path.parent if (path.parent / FILE).is_file() else path.parent.parent  # a SavedModel has its own folder
    config = read_config(beside / FILE)
    size = 4 * sum(math.prod(shape) for shape in weight_shapes(config).values())
    check_space(path, size)
    tell(f"making {path}: random weights from seed {seed}, {size / 1e9:.2f} GB")
    write_with(WRITERS, path, config, random_tensors(config, seed))


def random_tensors(config: UNetConfig, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of every shape from a seed, as a net is before training: no answer of it means anything."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in weight_shapes(config).items():
        values = rng.standard_normal(shape, np.float32)
        values *= (2 / math.prod(shape[1:])) ** 0.5 if len(shape) == 5 else 0.1
        values += name.endswith(".1.weight")  # the scale of a normalisation
        tensors[name] = values
    return tensors
