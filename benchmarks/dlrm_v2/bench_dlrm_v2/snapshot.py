"""Reads the official weights: a directory of torchsnapshot, version 0.1.0, without torchsnapshot.

`.snapshot_metadata` lists, for each rank that took part in the training, what it has of each tensor: all of it, or
shards of it, each a range of bytes of some file. Here the ranks' shards become one list of pieces a tensor, whatever
their number was; nothing but the list is read before a piece is asked for, and then it is mapped into memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_dlrm_v2.config import DlrmConfig, config_of
from bench_dlrm_v2.official import METADATA
from loadgen.contracts import InputError

STATE = "model/"
"""Begins the names of the model's tensors, after the rank."""
_DTYPES: Mapping[str, str] = MappingProxyType({"torch.float32": "<f4", "torch.float16": "<f2"})
_AGAIN = "Fetch the whole folder again"


@dataclass(frozen=True)
class Piece:
    """Some rows of a tensor, or all of it."""

    first: int
    """Row."""
    shape: tuple[int, ...]
    file: Path
    begin: int
    """Byte of the file."""
    dtype: str

    @property
    def end(self) -> int:
        """The byte after the last."""
        return self.begin + math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def last(self) -> int:
        """The row after its last."""
        return self.first + self.shape[0]

    def map(self) -> npt.NDArray[Any]:
        """Mapped into memory, copied where it is written to. Raises InputError that names a file that is not whole."""
        size = self.file.stat().st_size if self.file.is_file() else -1
        if size < self.end:
            state = "missing" if size < 0 else f"cut off: {size:,} bytes, {self.end:,} or more expected"
            raise InputError(f"{self.file} is {state}. {_AGAIN}")
        return np.memmap(self.file, self.dtype, "c", self.begin, self.shape)


class Snapshot:
    """A directory of weights."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError that names the file or the tensor that does not fit."""
        self.metadata = folder / METADATA
        document = _read(self.metadata)
        world, manifest = document.get("world_size"), document.get("manifest")
        if type(world) is not int or not isinstance(manifest, dict):
            raise InputError(f"{self.metadata}: has no world_size and manifest. {_AGAIN}")
        found: dict[str, list[Piece]] = {}
        seen: set[int] = set()
        for path, entry in manifest.items():
            rank, _, name = str(path).partition("/")
            seen.add(int(rank) if rank.isdecimal() else -1)
            if name.startswith(STATE):
                found.setdefault(name.removeprefix(STATE), []).extend(self._pieces(folder, path, entry))
        if seen != set(range(world)):
            raise InputError(
                f"{self.metadata}: says that {world} ranks wrote it, but lists those of {_ranges(sorted(seen))}: "
                f"it is of another snapshot, or cut. {_AGAIN}"
            )
        self.pieces: dict[str, tuple[Piece, ...]]
        self.pieces = {name: self._joined(name, pieces) for name, pieces in found.items() if pieces}

    def _pieces(self, folder: Path, path: str, entry: Any) -> Iterator[Piece]:
        """Of one entry; none of one that only groups others."""
        try:
            match entry["type"]:
                case "Tensor":
                    yield self._piece(folder, [0], entry["shape"], entry)
                case "ShardedTensor" | "ChunkedTensor" as kind:
                    for shard in entry["shards" if kind == "ShardedTensor" else "chunks"]:
                        yield self._piece(folder, shard["offsets"], shard["sizes"], shard["tensor"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{self.metadata}: the entry {path!r} is no entry of torchsnapshot ({error!r})") from error

    def _piece(self, folder: Path, offsets: list[int], sizes: list[int], tensor: Mapping[str, Any]) -> Piece:
        if any(offsets[1:]):
            raise InputError(f"{self.metadata}: {tensor['location']} is sharded by columns; only rows can be read")
        if tensor["serializer"] != "buffer_protocol" or tensor["dtype"] not in _DTYPES:
            raise InputError(
                f"{self.metadata}: {tensor['location']} holds {tensor['dtype']} by {tensor['serializer']}, expected "
                f"{' or '.join(_DTYPES)} by buffer_protocol"
            )
        begin, end = tensor["byte_range"] or (0, None)
        piece = Piece(offsets[0], tuple(sizes), folder / tensor["location"], begin, _DTYPES[tensor["dtype"]])
        if end not in (None, piece.end):
            raise InputError(f"{self.metadata}: {tensor['location']} has bytes {begin} to {end} for a shape of {sizes}")
        return piece

    def _joined(self, name: str, found: list[Piece]) -> tuple[Piece, ...]:
        """In the order of their rows. Ranks that hold the same rows are copies of each other: the first's are taken."""
        first: dict[int, Piece] = {}
        for piece in found:
            first.setdefault(piece.first, piece)
        pieces = tuple(first[row] for row in sorted(first))
        end = 0
        for piece in pieces:
            if piece.first != end or piece.shape[1:] != pieces[0].shape[1:]:
                raise InputError(
                    f"{self.metadata}: rows {end} to {piece.first - 1} of {name} are in no shard, "
                    f"or in two of them. {_AGAIN}"
                )
            end += piece.shape[0] if piece.shape else 1
        return pieces

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor."""
        return {
            name: (sum(piece.shape[0] for piece in pieces), *pieces[0].shape[1:]) if pieces[0].shape else ()
            for name, pieces in self.pieces.items()
        }

    @cached_property
    def config(self) -> DlrmConfig:
        """The model's sizes. Raises InputError naming a tensor that does not fit the others."""
        return config_of(self.shapes, str(self.metadata))

    def check_files(self) -> None:
        """Raise InputError that names the first file of them all that is missing or cut off."""
        for pieces in self.pieces.values():
            for piece in pieces:
                piece.map()

    def read(self, name: str) -> npt.NDArray[Any]:
        """A whole tensor, in memory of its own. Raises InputError as `Piece.map`."""
        return np.concatenate([np.atleast_1d(piece.map()) for piece in self.pieces[name]]).reshape(self.shapes[name])


def _read(path: Path) -> dict[str, Any]:
    """JSON, which is what version 0.1.0 writes, or any other YAML, as earlier ones did."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official folder {path.parent.name} there")
    text = path.read_text(errors="replace")
    try:
        document: Any = json.loads(text)
    except ValueError:
        document = _yaml(path, text)
    if not isinstance(document, dict):
        raise InputError(f"{path}: neither JSON nor YAML of torchsnapshot. {_AGAIN}")
    return document


def _yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: neither JSON nor YAML ({str(error).splitlines()[0]}). {_AGAIN}") from error


def _ranges(ranks: list[int]) -> str:
    """`0 to 3, 7`."""
    cuts = [0, *(at for at, (a, b) in enumerate(pairwise(ranks), start=1) if b != a + 1), len(ranks)]
    parts = [ranks[low:high] for low, high in pairwise(cuts) if high > low]
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts) or "none"
