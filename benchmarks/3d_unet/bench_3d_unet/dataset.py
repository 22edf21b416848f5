"""KiTS19 as the model reads it: one sample is the whole volume of one case, and volumes are of different sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench_3d_unet import sliding_window
from bench_3d_unet.config import FILE, read_config
from bench_3d_unet.official import CASES
from bench_3d_unet.prepared import Prepared, prepare
from bench_3d_unet.preprocess import Label
from bench_3d_unet.sliding_window import F32
from loadgen.contracts import I64

_READERS = 4
"""Threads: a file is read and hashed without Python's lock, and takes 0.3 GB meanwhile."""


@dataclass(frozen=True)
class Batch:
    """Volumes of one or more samples."""

    volumes: Sequence[F32]
    """float32 [D, H, W] each, normalised."""


class Dataset:
    """The cases below `data/raw`, preprocessed into `data/preprocessed` (see `contracts.Dataset`)."""

    def __init__(self, folder: Path, *, cases: Sequence[str] = CASES) -> None:
        """cases: sample i is case i. Raises InputError that names the file and the fault, or missing cases."""
        self.cases = tuple(cases)
        self.window = read_config(folder / "model" / FILE).window
        prepared = folder / "data" / "preprocessed"
        prepare(folder / "data" / "raw", prepared, self.cases, self.window)
        self._prepared = Prepared(prepared, self.cases, self.window)
        self._loaded: dict[int, F32] = {}

    @property
    def name(self) -> str:
        return "KiTS19"

    @property
    def total_count(self) -> int:
        return len(self.cases)

    @property
    def performance_count(self) -> int:
        """All: the official set takes 5 GB."""
        return len(self.cases)

    def load(self, indices: Sequence[int]) -> None:
        """Side by side in one piece of memory, which a GPU's driver can lock. Raises InputError that names a damaged
        file."""
        sizes = [math.prod(self.shape(index)) for index in indices]
        together = np.empty(sum(sizes), np.float32)
        places = np.split(together, np.cumsum(sizes)[:-1])
        for index, place in zip(indices, places, strict=True):
            self._loaded[index] = place.reshape(self.shape(index))
        with ThreadPoolExecutor(_READERS) as readers:
            list(readers.map(self._read, indices))

    def _read(self, index: int) -> None:
        self._loaded[index][...] = self._prepared.volume(self.cases[index]).image[0]

    def unload(self, indices: Sequence[int]) -> None:
        for index in indices:
            del self._loaded[index]

    def gather(self, indices: I64) -> Batch:
        return Batch([self._loaded[index] for index in indices.tolist()])

    def costs(self, indices: I64) -> I64:
        """Windows of each volume."""
        windows = [sliding_window.count(self.shape(index), self.window) for index in indices.tolist()]
        return np.array(windows, np.int64)

    def shape(self, index: int) -> tuple[int, int, int]:
        """[D, H, W] of a sample, loaded or not."""
        return self._prepared.shapes[self.cases[index]]

    def label(self, index: int) -> Label:
        """The true labels [D, H, W], read from the disk. Raises InputError that names a damaged file."""
        label: Label = self._prepared.volume(self.cases[index]).label[0]
        return label
