"""Decoded images in one memory-mapped file, so that a JPEG file is decoded once and not once a run.

What is kept are the bytes that the decoder gave, a third of what the model reads: resized images are float32, and
24,781 of them would take 190 GB. A row is an image: the size and time of its file, a checksum and its pixels, so that
a changed file is decoded again and a half-written row is never taken for an image. A manifest beside it says what all
rows have in common; where that changes, the file is begun anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from bench_retinanet.annotations import Picture
from bench_retinanet.preprocess import Pixels, decode
from loadgen.harness.files import whole_file

_FORMAT = 1
_HEADER = struct.Struct("<QQI44x")  # a cache line: bytes and time of the file, checksum of the pixels


class Decoded:
    """The decoded images of a list of files. Any thread may call its methods for different images."""

    def __init__(self, folder: Path, files: Sequence[Path], pictures: Sequence[Picture]) -> None:
        """folder: where the file goes if it can be written, else one of the temporary folder.

        Raises OSError if neither can.
        """
        self._files, self._pictures = files, pictures
        sizes = [_HEADER.size + 3 * picture.height * picture.width for picture in pictures]
        self._starts = np.concatenate([[0], np.cumsum(np.array(sizes, np.int64))])
        self.path = _writable(folder) / "decoded.bin"
        self._open()

    def _open(self) -> None:
        manifest, wanted = self.path.with_suffix(".manifest"), self._manifest()
        size = int(self._starts[-1])
        known = manifest.is_file() and manifest.read_text() == wanted
        if not known or not self.path.is_file() or self.path.stat().st_size != size:
            manifest.unlink(missing_ok=True)
            with whole_file(self.path) as part, part.open("wb") as file:
                file.truncate(size)  # no bytes yet: the file system stores those that are written
            with whole_file(manifest) as part:
                part.write_text(wanted)
        self._file = self.path.open("r+b", buffering=0)
        self._bytes: Pixels = np.memmap(self._file, np.uint8, "r", shape=(size,))

    def _manifest(self) -> str:
        rows = "\n".join(f"{file} {p.height} {p.width}" for file, p in zip(self._files, self._pictures, strict=True))
        common = {
            "format": _FORMAT,
            "images": len(self._files),
            "names and sizes sha256": hashlib.sha256(rows.encode()).hexdigest(),
            "opencv": cv2.__version__,
        }
        return json.dumps(common, indent=1) + "\n"

    def missing_bytes(self, indices: Iterable[int]) -> int:
        """By how much the file grows if these images are read."""
        missing = (index for index in indices if self._stamp(index)[:2] != self._status(index))
        return int(sum(self._starts[index + 1] - self._starts[index] for index in missing))

    def read(self, index: int) -> Pixels:
        """[height, width, 3] red, green, blue, from the file of decoded images or, for the first time, into it.

        Raises ValueError or OSError that says what is wrong with the image's file.
        """
        picture, status, stamp = self._pictures[index], self._status(index), self._stamp(index)
        pixels = self._bytes[self._starts[index] + _HEADER.size : self._starts[index + 1]]
        if stamp == _Stamp(*status, zlib.crc32(pixels.data)):
            return pixels.reshape(picture.height, picture.width, 3)
        decoded = decode(self._files[index].read_bytes())
        height, width, _ = decoded.shape
        if (height, width) != (picture.height, picture.width):
            raise ValueError(f"{width} x {height} pixels, but the annotations say {picture.width} x {picture.height}")
        data = decoded.tobytes()
        # not through the mapping, where a full disk would kill the process
        header = _HEADER.pack(*status, zlib.crc32(data))
        os.pwrite(self._file.fileno(), header + data, int(self._starts[index]))
        return decoded

    def _status(self, index: int) -> tuple[int, int]:
        status = self._files[index].stat()
        return status.st_size, status.st_mtime_ns

    def _stamp(self, index: int) -> _Stamp:
        start = self._starts[index]
        return _Stamp(*_HEADER.unpack(self._bytes[start : start + _HEADER.size].tobytes()))


class _Stamp(NamedTuple):
    bytes: int
    changed_ns: int
    checksum: int


def _writable(folder: Path) -> Path:
    """The data's own folder; official data may well lie where nothing can be written."""
    if os.access(folder, os.W_OK):
        return folder
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    other = Path(tempfile.gettempdir()) / f"inference-bench-{os.getuid()}" / "retinanet" / name
    other.mkdir(parents=True, exist_ok=True)
    return other
