"""Prepared images in one memory-mapped file, so that an image is decoded once and not once a run.

A row is an image: its pixels, a checksum of them, and the size and time of the file that they came from, so that a
changed file is prepared again and a half-written row is never taken for an image. A manifest beside it says what
all rows have in common; where that changes, the file is begun anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL

from bench_resnet50.batch import Pixels
from bench_resnet50.preprocess import crop
from loadgen.harness.files import whole_file

_HEADER = 64  # bytes before the pixels; a multiple of a cache line
_FORMAT = 1


class Crops:
    """The prepared images of a list of files. Any thread may call `prepare` for different rows."""

    def __init__(self, folder: Path, files: Sequence[Path], image: int, variant: str) -> None:
        """folder: where the file goes if it can be written, else one of the temporary folder.

        Raises OSError if neither can.
        """
        self._files, self._image, self._variant = files, image, variant
        self._row = np.dtype(
            {
                "names": ["bytes", "changed_ns", "checksum", "pixels"],
                "formats": ["<u8", "<u8", "<u4", ("u1", (image, image, 3))],
                "offsets": [0, 8, 16, _HEADER],
                "itemsize": _HEADER + image * image * 3,
            }
        )
        self.path = _writable(folder) / f"crops-{variant}-{image}.bin"
        self._open()

    def _open(self) -> None:
        manifest, wanted = self.path.with_suffix(".json"), self._manifest()
        size = len(self._files) * self._row.itemsize
        known = manifest.is_file() and manifest.read_text() == wanted
        if not known or not self.path.is_file() or self.path.stat().st_size != size:
            manifest.unlink(missing_ok=True)
            with whole_file(self.path) as part, part.open("wb") as file:
                file.truncate(size)  # no bytes yet: the file system stores those that are written
            with whole_file(manifest) as part:
                part.write_text(wanted)
        self._file = self.path.open("r+b", buffering=0)
        self._rows: npt.NDArray[Any] = np.memmap(self._file, self._row, "r", shape=(len(self._files),))

    def _manifest(self) -> str:
        names = "\n".join(str(file) for file in self._files)
        common = {
            "format": _FORMAT,
            "variant": self._variant,
            "image": self._image,
            "count": len(self._files),
            "files sha256": hashlib.sha256(names.encode()).hexdigest(),
            "opencv": cv2.__version__,
            "pillow": PIL.__version__,
        }
        return json.dumps(common, indent=1) + "\n"

    @property
    def row_bytes(self) -> int:
        return self._row.itemsize

    @property
    def pixels(self) -> Pixels:
        """[n, image, image, 3] of all images, zero where none was prepared."""
        return np.asarray(self._rows["pixels"])

    def is_ready(self, index: int) -> bool:
        """Is the row there, whole, and of the file as it is now? Reads the row, and so brings it into memory."""
        row = self._rows[index]
        if not row["bytes"]:
            return False
        status = self._files[index].stat()
        same = (row["bytes"], row["changed_ns"]) == (status.st_size, status.st_mtime_ns)
        return bool(same and row["checksum"] == _checksum(row["pixels"]))

    def prepare(self, index: int) -> None:
        """Decode, resize and crop one file. Raises ValueError or OSError that says what is wrong with it."""
        file = self._files[index]
        status = file.stat()
        row = np.zeros((), self._row)
        pixels = crop(file.read_bytes(), self._image, self._variant)
        row["pixels"], row["checksum"] = pixels, _checksum(pixels)
        row["bytes"], row["changed_ns"] = status.st_size, status.st_mtime_ns
        # not through the mapping, where a full disk would kill the process
        os.pwrite(self._file.fileno(), row.tobytes(), index * self._row.itemsize)


def _checksum(pixels: Pixels) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def _writable(folder: Path) -> Path:
    """The data's own folder; official data may well lie where nothing can be written."""
    if os.access(folder, os.W_OK):
        return folder
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    other = Path(tempfile.gettempdir()) / f"inference-bench-{os.getuid()}" / "resnet50" / name
    other.mkdir(parents=True, exist_ok=True)
    return other
