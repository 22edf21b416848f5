"""OpenImages' validation set as the official files have it: JPEG files, and one JSON file in COCO's form.

Sample i is image i of the JSON file. A missing or unreadable image is an error that names it, and never moves the
boxes of those behind it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench_retinanet.annotations import Picture, read_annotations
from bench_retinanet.decoded import Decoded
from bench_retinanet.official import ANNOTATIONS, IMAGE_FOLDERS
from bench_retinanet.preprocess import Images, resize_into
from loadgen.contracts import I64, InputError
from loadgen.harness.assets.asset import check_space

_MEMORY = 2_000_000_000
"""Bytes that loaded images take at the most: 260 of 800 x 800 pixels, four times the rules' 64."""
_TELL_S = 5.0
"""How often a long preparation says how far it is."""


@dataclass(frozen=True)
class Batch:
    """Images that are loaded."""

    source: Images
    """[m, 3, side, side]: all that are loaded, or those of this batch alone."""
    rows: I64 | None = None
    """Which of them, in this order; None: all."""

    def __len__(self) -> int:
        return len(self.source if self.rows is None else self.rows)

    @cached_property
    def images(self) -> Images:
        """[n, 3, side, side] of this batch, a view of the source if its rows follow each other."""
        if self.rows is None:
            return self.source
        first, count = int(self.rows[0]), len(self.rows)
        if (self.rows == np.arange(first, first + count)).all():
            return self.source[first : first + count]
        return self.source[self.rows]

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets no more than the batch's own images."""
        return Batch, (self.images,)


class Dataset:
    """The images that the JSON file lists, resized when they are loaded (see `contracts.Dataset`)."""

    def __init__(self, folder: Path, *, image: int = 800, classes: int = 264) -> None:
        """folder: the profile's, with `data/` below it; image: pixels of a side that the model reads.

        Raises InputError as `read_annotations`, or that names images that are missing."""
        data = folder / "data"
        self.image = image
        self.annotations = read_annotations(data / ANNOTATIONS, classes)
        self.files = find_images(data, self.annotations.pictures)
        try:
            self._decoded = Decoded(data, self.files, self.annotations.pictures)
        except OSError as error:
            raise InputError(f"{data}: decoded images cannot be stored ({error}): make it writable") from error
        self._place = np.full(len(self.files), -1, np.int64)  # row of an image in memory; -1: not loaded
        self._memory: Images = np.empty((0, 3, image, image), np.float32)

    @property
    def name(self) -> str:
        return "OpenImages validation"

    @property
    def total_count(self) -> int:
        return len(self.files)

    @property
    def performance_count(self) -> int:
        """As many as fit in 2 GB: 260 of 800 x 800 pixels. The rules want 64."""
        return min(self.total_count, _MEMORY // (4 * 3 * self.image**2))

    def load(self, indices: Sequence[int]) -> None:
        """Bring these images into memory, those that were never decoded from their JPEG files, in parallel.

        Raises InputError that names the images that cannot be read.
        """
        wanted = np.union1d(np.flatnonzero(self._place >= 0), np.asarray(indices, np.int64))
        check_space(self._decoded.path.parent, self._decoded.missing_bytes(wanted.tolist()))
        memory = np.empty((len(wanted), *self._memory.shape[1:]), np.float32)

        def fill(place: int) -> str:
            return self._fault(int(wanted[place]), memory[place])

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            faults = [fault for fault in _telling(pool.map(fill, range(len(wanted))), len(wanted)) if fault]
        if faults:
            raise InputError(
                f"{len(faults)} of {len(wanted)} images cannot be read: {'; '.join(faults[:3])}"
                f"{'; ...' if len(faults) > 3 else ''}: put the official files there"
            )
        self._memory = memory
        self._place[wanted] = np.arange(len(wanted))

    def _fault(self, index: int, target: Images) -> str:
        """Read one image into [3, side, side]; what is wrong with it in words, or nothing."""
        if (place := self._place[index]) >= 0:
            target[:] = self._memory[place]
            return ""
        try:
            resize_into(target, self._decoded.read(index))
        except (ValueError, OSError) as error:
            return f"sample {index}, {self.files[index]}: {error}"
        return ""

    def unload(self, indices: Sequence[int]) -> None:
        """Frees the memory once no image is loaded."""
        self._place[np.asarray(indices, np.int64)] = -1
        if (self._place < 0).all():
            self._memory = self._memory[:0].copy()

    def gather(self, indices: I64) -> Batch:
        """Raises ValueError that names a sample that is not loaded."""
        places = self._place[indices]
        if (places < 0).any():
            raise ValueError(f"sample {indices[int(places.argmin())]} is not loaded")
        return Batch(self._memory, places)

    def costs(self, indices: I64) -> I64:
        """Every image is as much work as another."""
        return np.ones(len(indices), np.int64)


def find_images(data: Path, pictures: Sequence[Picture]) -> list[Path]:
    """The image files, in the annotations' order, from that of the official folders which holds the first of them.

    Raises InputError that names those that are missing: without them, all samples behind would be others.
    """
    folders = [data / name for name in IMAGE_FOLDERS]
    folder = next((place for place in folders if (place / pictures[0].file_name).is_file()), folders[0])
    files = [folder / picture.file_name for picture in pictures]
    missing = [(sample, file) for sample, file in enumerate(files) if not file.is_file()]
    if missing:
        some = ", ".join(f"{file} (sample {sample})" for sample, file in missing[:3])
        raise InputError(
            f"{len(missing):,} of {len(files):,} images that {data / ANNOTATIONS} lists are missing: {some}"
            f"{', ...' if len(missing) > 3 else ''}. `python -m bench_retinanet.images {data}` gets OpenImages' own; "
            "fewer images need a shorter list"
        )
    return files


# Twin of: benchmarks/resnet50/bench_resnet50/dataset.py::_telling
def _telling(results: Iterable[str], count: int) -> Iterator[str]:
    """The same, with a line on stderr now and then if it takes long."""
    began = told = time.monotonic()
    for number, result in enumerate(results, 1):
        yield result
        now = time.monotonic()
        if now - told > _TELL_S or (number == count and now - began > _TELL_S):
            told = now
            rate = number / (now - began)
            print(f"prepared {number:,} of {count:,} images, {rate:,.0f} a second", file=sys.stderr, flush=True)
