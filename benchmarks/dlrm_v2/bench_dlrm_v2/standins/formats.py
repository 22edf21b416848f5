"""Writes the official checkpoint format: a directory as torchsnapshot 0.1.0 leaves it after a training on 8 GPUs.

Large tables are cut into as many parts as there are ranks, and those into files; small ones are on one rank each. What
is small shares a file with others of its rank, `batched/<id>`; dense weights are the same on all ranks, so they are
stored once.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_dlrm_v2.config import DlrmConfig, Tensors, table_name, weight_shapes
from bench_dlrm_v2.official import METADATA
from bench_dlrm_v2.snapshot import STATE
from loadgen.harness.files import whole_file

Entry: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class Layout:
    """How the tensors are cut. The defaults are the official ones."""

    ranks: int = 8
    piece_rows: int = 1_048_576
    """Of one file: 512 MiB of float32 at 128 columns."""
    large_rows: int = 1_000_000
    """From so many rows on a table is on all ranks."""
    batched_bytes: int = 8 << 20
    """Up to so many, a tensor shares a file with others."""


OFFICIAL = Layout()


def write_snapshot(folder: Path, config: DlrmConfig, tensors: Tensors, layout: Layout = OFFICIAL) -> None:
    """Write the folder. A tensor that is not among `tensors` is listed, and its file left out."""
    folder.mkdir(parents=True, exist_ok=True)
    shared, *slabs = [_Slab(name) for name in ("dense", *(f"rank {rank}" for rank in range(layout.ranks)))]
    entries: list[dict[str, Entry]] = [{} for _ in range(layout.ranks)]
    tables = {table_name(number): number for number in range(len(config.rows))}
    for name, shape in weight_shapes(config).items():
        store = _Store(folder, name, shape, tensors.get(name), layout)
        if name not in tables:
            entries[0][name] = store.entry(shared, f"replicated/{STATE}{name}", replicated=True)
            continue
        for rank, begin, end in _shares(shape[0], tables[name], layout):
            shards = [store.shard(slabs[rank], first, last) for first, last in _cut(begin, end, layout.piece_rows)]
            entries[rank][name] = {"type": "ShardedTensor", "shards": shards}
    for slab in (shared, *slabs):
        slab.write(folder)
    names = list(weight_shapes(config))
    manifest: dict[str, Entry] = {}
    for rank, own in enumerate(entries):
        keys = [name for name in names if name in own or name not in tables]
        manifest[f"{rank}/{STATE.rstrip('/')}"] = {"type": "OrderedDict", "keys": keys}
        manifest |= {f"{rank}/{STATE}{name}": entry for name, entry in own.items()}
    document = {"version": "0.1.0", "world_size": layout.ranks, "manifest": manifest}
    with whole_file(folder / METADATA) as part:
        part.write_text(json.dumps(document, indent=2))


def _shares(rows: int, table: int, layout: Layout) -> Iterator[tuple[int, int, int]]:
    """(rank, first row, row after the last) of each rank that has rows of a table."""
    if rows < layout.large_rows:
        yield table % layout.ranks, 0, rows
        return
    size = -(-rows // layout.ranks)
    for rank in range(layout.ranks):
        if rank * size < rows:
            yield rank, rank * size, min(rows, (rank + 1) * size)


def _cut(begin: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(begin, end, size):
        yield first, min(end, first + size)


class _Slab:
    """Small tensors, one after the other in one file."""

    def __init__(self, name: str) -> None:
        self.location = f"batched/{uuid.uuid5(uuid.NAMESPACE_OID, name)}"
        self._parts: list[bytes | int] = []
        self._size = 0

    def add(self, values: npt.NDArray[Any] | None, size: int) -> list[int]:
        """The range of bytes that it gets."""
        self._parts.append(size if values is None else values.tobytes())
        self._size += size
        return [self._size - size, self._size]

    def write(self, folder: Path) -> None:
        """Unless it has a tensor whose values nobody gave."""
        if not self._parts or any(isinstance(part, int) for part in self._parts):
            return
        _write(folder / self.location, lambda: b"".join(part for part in self._parts if isinstance(part, bytes)))


@dataclass(frozen=True)
class _Store:
    """One tensor on its way into files."""

    folder: Path
    name: str
    shape: tuple[int, ...]
    values: npt.NDArray[Any] | None
    layout: Layout

    def shard(self, slab: _Slab, first: int, last: int) -> Entry:
        """The entry of rows [first, last)."""
        location = f"sharded/{STATE}{self.name}_{first}_0"
        sizes = [last - first, *self.shape[1:]]
        return {"offsets": [first, 0], "sizes": sizes, "tensor": self.entry(slab, location, rows=slice(first, last))}

    def entry(self, slab: _Slab, location: str, rows: slice = slice(None), replicated: bool = False) -> Entry:
        """Of some rows, in the slab if they are small, else in a file of their own."""
        shape = (len(range(self.shape[0])[rows]), *self.shape[1:])
        size = int(np.prod(shape)) * 4
        part = None if self.values is None else np.ascontiguousarray(self.values[rows], "<f4")
        byte_range: list[int] | None = None
        if size <= self.layout.batched_bytes:
            location, byte_range = slab.location, slab.add(part, size)
        elif part is not None:
            _write(self.folder / location, part.tobytes)
        return {
            "type": "Tensor",
            "location": location,
            "serializer": "buffer_protocol",
            "dtype": "torch.float32",
            "shape": list(shape),
            "replicated": replicated,
            "byte_range": byte_range,
        }


def _write(path: Path, content: Callable[[], bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_bytes(content())
