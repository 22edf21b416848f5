"""Generated JPEG files of OpenImages' usual size (1024 x 768 pixels, some 250 kB), with boxes, in OpenImages' form.

They show nothing: blobs, stripes and grain of random size and colour, all of one contrast, with boxes in random
places. But they cost what photographs cost to decode, and differ enough for random weights to tell them apart. More
of them than a run makes by itself: `python -m bench_retinanet.standins.images FOLDER --count 24781`.
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

from bench_retinanet.official import IMAGE_FOLDERS
from bench_retinanet.standins.generate import Object, annotation_entry, image_entry, write_annotations

COUNT = 256
SEED = 1
CLASSES = 264
_SHAPES = ((768, 1024), (683, 1024), (1024, 768), (1024, 683), (576, 1024), (1024, 1024))
"""Height and width; most of OpenImages' are about the first two."""
_MEAN, _DEVIATION = 118.0, 52.0
"""Of an image's values: about photographs'."""


def draw(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """[height, width, 3] of blobs of four sizes, stripes and grain, each as strong as chance has it."""
    height, width = _SHAPES[min(rng.geometric(0.45), len(_SHAPES)) - 1]
    picture = np.zeros((height, width, 3), np.float32)
    for octave in (3, 9, 40, 160):
        strength = np.float32(rng.uniform(0.5, 1) / octave**0.4)
        small = rng.standard_normal((octave * height // width + 1, octave, 3), np.float32)
        picture += strength * cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    along, across = rng.normal(0, rng.choice([0.03, 0.2]), 2).astype(np.float32)
    phase = along * np.arange(height, dtype=np.float32)[:, None] + across * np.arange(width, dtype=np.float32)
    picture += np.sin(phase)[:, :, None] * rng.normal(0, 0.3, 3).astype(np.float32)
    picture += 0.12 * rng.standard_normal((height, width, 1), np.float32)
    picture = (picture - picture.mean((0, 1))) / picture.std((0, 1))
    return np.asarray(np.clip(_MEAN + _DEVIATION * picture, 0, 255), np.uint8)


def _boxes(height: int, width: int, rng: np.random.Generator) -> list[Object]:
    """1 to 20 of all sizes, some of them groups."""
    found = []
    for _ in range(min(20, rng.geometric(0.15))):
        wide, high = np.exp(rng.uniform(np.log(0.03), 0, 2)) * [width, height]
        left, top = rng.uniform(0, [width - wide, height - high])
        label, group = int(rng.integers(CLASSES)), bool(rng.random() < 0.1)
        found.append(Object(label, float(left), float(top), float(wide), float(high), group))
    return found


def write(folder: Path, count: int = COUNT) -> None:
    """`validation/data/*.jpg` and the annotations, the same each time; a longer list begins as a shorter one does."""
    (folder / IMAGE_FOLDERS[0]).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        made = list(pool.map(partial(_write_one, folder), range(count)))
    entries = [entry for entry, _ in made]
    found = [(place + 1, box) for place, (_, boxes) in enumerate(made) for box in boxes]
    boxes = [annotation_entry(place + 1, image, box) for place, (image, box) in enumerate(found)]
    write_annotations(folder, entries, boxes, [f"class {number}" for number in range(CLASSES)])


def _write_one(folder: Path, number: int) -> tuple[dict[str, Any], list[Object]]:
    """The image's entry in the annotations, and its boxes."""
    rng = np.random.default_rng([SEED, number])
    pixels = draw(rng)
    height, width, _ = pixels.shape
    encoded: Any = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(80, 93))])[1]
    name = f"{number:016x}.jpg"
    (folder / IMAGE_FOLDERS[0] / name).write_bytes(bytes(encoded))
    return image_entry(number + 1, name, (height, width)), _boxes(height, width, rng)


# Twin of: benchmarks/resnet50/bench_resnet50/standins/images.py::main
def main(arguments: Sequence[str] | None = None) -> None:
    """Write as many as the words of a command line say."""
    parser = argparse.ArgumentParser(prog="images", description=__doc__)
    parser.add_argument("folder", type=Path, help="the profile's folder; images go to data/ below it")
    parser.add_argument("--count", type=int, default=COUNT)
    args = parser.parse_args(arguments)
    write(args.folder / "data", args.count)


if __name__ == "__main__":
    main()
