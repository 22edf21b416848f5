"""ImageNet-2012's validation set as the official files have it: images, and `val_map.txt` that names their classes.

Sample i is line i of `val_map.txt`. A missing or unreadable image is an error that names it, and never moves the
classes of those behind it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bench_resnet50.batch import NORMALISATIONS, Batch, Pixels
from bench_resnet50.crops import Crops
from loadgen.contracts import I64, InputError
from loadgen.harness.assets.asset import check_space

MAP = "val_map.txt"
_TELL_S = 5.0
"""How often a long preparation says how far it is."""


class Dataset:
    """The images that `val_map.txt` lists, prepared when they are loaded (see `contracts.Dataset`)."""

    def __init__(self, folder: Path, *, image: int = 224, classes: int = 1000, variant: str = "tf") -> None:
        """folder: the profile's, with `data/` below it; image: pixels of a side; variant: see `preprocess`.

        Raises InputError as `read_map`, or if files are missing or the variant is unknown."""
        if variant not in NORMALISATIONS:
            raise InputError(f"variant {variant!r}: use {' or '.join(NORMALISATIONS)}")
        data = folder / "data"
        names, self.labels = read_map(data / MAP, classes)
        self.files = [data / name for name in names]
        self.variant = variant
        _check_files(self.files, data / MAP)
        try:
            self._crops = Crops(data, self.files, image, variant)
        except OSError as error:
            raise InputError(f"{data}: prepared images cannot be stored ({error}): make it writable") from error
        self._place = np.full(len(names), -1, np.int64)  # row of an image in memory; -1: not loaded
        self._memory: Pixels = np.empty((0, image, image, 3), np.uint8)

    @property
    def name(self) -> str:
        return "ImageNet-2012 validation"

    @property
    def total_count(self) -> int:
        return len(self.files)

    @property
    def performance_count(self) -> int:
        """All: 150 KB of memory each, unless the rules' 1,024 are loaded at a time."""
        return len(self.files)

    def load(self, indices: Sequence[int]) -> None:
        """Prepare those images that the file of prepared ones lacks, and bring all into memory, in parallel.

        Raises InputError that names the images that cannot be read.
        """
        wanted = np.unique(np.asarray(indices, np.int64))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            ready = list(pool.map(self._crops.is_ready, wanted.tolist()))
            missing = wanted[~np.array(ready, np.bool_)].tolist()
            check_space(self._crops.path.parent, len(missing) * self._crops.row_bytes)
            faults = [fault for fault in _telling(pool.map(self._fault, missing), len(missing)) if fault]
        if faults:
            raise InputError(
                f"{len(faults)} of {len(wanted)} images cannot be read: {'; '.join(faults[:3])}"
                f"{'; ...' if len(faults) > 3 else ''}: put the official files there"
            )
        self._hold(np.union1d(np.flatnonzero(self._place >= 0), wanted))

    def _hold(self, images: I64) -> None:
        """Copies in memory of these, and of no others. A mapping of the file would do if the system never took its
        pages away: on one machine it did, and a batch then took ten times as long."""
        memory = np.empty((len(images), *self._memory.shape[1:]), np.uint8)

        def copy(place: int) -> None:
            memory[place] = self._crops.pixels[images[place]]

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(copy, range(len(images))))
        self._memory = memory
        self._place[:] = -1
        self._place[images] = np.arange(len(images))

    def _fault(self, index: int) -> str:
        """Prepare one image; what is wrong with it in words, or nothing."""
        try:
            self._crops.prepare(index)
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
        return Batch(self._memory, self.variant, places)

    def costs(self, indices: I64) -> I64:
        """Every image is as much work as another."""
        return np.ones(len(indices), np.int64)


def read_map(path: Path, classes: int) -> tuple[list[str], I64]:
    """File names and classes, line by line. Raises InputError that names the first wrong line."""
    advice = "put ImageNet-2012's validation images and val_map.txt there"
    if not path.is_file():
        raise InputError(f"{path}: no such file: {advice}")
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()  # with the mark that Windows begins with
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error}): {advice}") from error
    if not lines:
        raise InputError(f"{path}: holds no line: {advice}")
    pairs = [_pair(line, f"{path}:{number}", classes) for number, line in enumerate(lines, 1)]
    known: dict[str, int] = {}
    for number, (name, _) in enumerate(pairs, 1):
        if known.setdefault(name, number) != number:
            raise InputError(f"{path}:{number}: {name} is in line {known[name]} too: remove one of the lines")
    return [name for name, _ in pairs], np.array([label for _, label in pairs], np.int64)


def _pair(line: str, place: str, classes: int) -> tuple[str, int]:
    words = line.split()
    if len(words) != 2 or not words[1].isdecimal():
        raise InputError(f"{place}: {line!r} is not a file name and a class: correct the line")
    if int(words[1]) >= classes:
        raise InputError(f"{place}: class {words[1]} is not one of 0 to {classes - 1}: correct the line")
    return words[0], int(words[1])


def _check_files(files: Sequence[Path], source: Path) -> None:
    missing = [(line, file) for line, file in enumerate(files, 1) if not file.is_file()]
    if missing:
        line, file = missing[0]
        raise InputError(
            f"{source}: {len(missing)} of {len(files)} images are missing, the first is {file} (line {line}): "
            "put them there; a shorter list of images needs a shorter val_map.txt"
        )


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
