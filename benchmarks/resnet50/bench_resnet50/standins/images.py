"""Generated JPEG files of ImageNet's usual size (500 x 375 pixels, some 100 kB), in ImageNet's form.

They show nothing: blobs, stripes and grain of random size and colour. But they cost what photographs cost to decode,
and differ enough for random weights to tell them apart. More of them than a run makes by itself:
`python -m bench_resnet50.standins.images FOLDER --count 50000`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bench_resnet50.dataset import MAP
from loadgen.harness.files import whole_file

COUNT = 2_000
SEED = 1
CLASSES = 1000
_SHAPES = ((375, 500), (500, 375), (333, 500), (500, 500), (400, 300))
"""Height and width; most of ImageNet's are about the first."""


def draw(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """[height, width, 3] of blobs of two sizes, stripes and grain, each as strong as chance has it."""
    height, width = _SHAPES[min(rng.geometric(0.5), len(_SHAPES)) - 1]
    picture = np.full((height, width, 3), rng.uniform(20, 235, 3), np.float32)
    for strength in rng.uniform(0, 90, 2):
        picture += _blobs(height, width, float(np.exp(rng.uniform(0.7, 4.5))), rng) * np.float32(strength)
    picture += _stripes(height, width, rng) * rng.normal(0, 45, 3).astype(np.float32)
    picture += _blobs(height, width, max(height, width), rng) * np.float32(rng.exponential(12))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _blobs(height: int, width: int, across: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Smooth noise, about so many blobs across the width, of deviation about 1."""
    columns = int(np.clip(across, 2, width))
    small = rng.standard_normal((max(2, columns * height // width), columns, 3), np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _stripes(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A wave of any direction and length, [height, width, 1]."""
    along, across = rng.normal(0, rng.choice([0.05, 0.5]), 2).astype(np.float32)
    phase = along * np.arange(height, dtype=np.float32)[:, None] + across * np.arange(width, dtype=np.float32)
    return np.asarray(np.sin(phase)[..., None], np.float32)


def write(folder: Path, count: int = COUNT) -> None:
    """`val/*.JPEG` and `val_map.txt`, the same each time; a longer list begins as a shorter one does."""
    (folder / "val").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        lines = list(pool.map(partial(_write_one, folder), range(count)))
    with whole_file(folder / MAP) as part:
        part.write_text("\n".join(lines) + "\n")


def _write_one(folder: Path, number: int) -> str:
    """The image's line in `val_map.txt`."""
    rng = np.random.default_rng([SEED, number])
    encoded: Any = cv2.imencode(".jpg", draw(rng), [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(80, 97))])[1]
    name = f"val/ILSVRC2012_val_{number + 1:08}.JPEG"
    (folder / name).write_bytes(bytes(encoded))
    return f"{name} {rng.integers(CLASSES)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write as many as the words of a command line say."""
    parser = argparse.ArgumentParser(prog="images", description=__doc__)
    parser.add_argument("folder", type=Path, help="the profile's folder; images go to data/ below it")
    parser.add_argument("--count", type=int, default=COUNT)
    args = parser.parse_args(arguments)
    write(args.folder / "data", args.count)


if __name__ == "__main__":
    main()
