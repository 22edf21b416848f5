"""Where the rows of tables come from: the snapshot's files, or a function that makes them where they are to lie."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bench_dlrm_v2.config import DlrmConfig, table_name
from bench_dlrm_v2.official import SNAPSHOT
from bench_dlrm_v2.snapshot import Snapshot
from loadgen.contracts import BackendOptions

OPTION = "tables"
"""The model option by which a profile names a `Maker`, as `"module:function"`: its tables are in no file."""
_BLOCK = 16_384  # rows that are read or made, converted and copied at a time


class Maker(Protocol):
    def __call__(self, table: int, first: int, rows: int, dim: int, device: torch.device) -> Tensor:
        """Rows first, first + 1, ... of a table, float32 [rows, dim] on the device; the same on every device."""


class Block(NamedTuple):
    """Rows of one table."""

    first: int
    values: Tensor
    """float32 [rows, dim], wherever they were."""


class Source:
    """The weights of a model folder."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError that names what is missing."""
        self.snapshot = Snapshot(options.model / SNAPSHOT)
        self.config: DlrmConfig = self.snapshot.config
        module, _, name = str(options.extra.get(OPTION, "")).partition(":")
        self._make: Maker | None = getattr(importlib.import_module(module), name) if module else None

    @property
    def is_mapped(self) -> bool:
        """Are the tables in files?"""
        return self._make is None

    def state(self) -> dict[str, Tensor]:
        """All weights but the tables, by their official names."""
        tables = {table_name(number) for number in range(len(self.config.rows))}
        names = [name for name in self.snapshot.shapes if name not in tables]
        return {name: torch.from_numpy(self.snapshot.read(name)).float() for name in names}

    def mapped(self, table: int) -> list[Tensor]:
        """The table's pieces in the order of their rows, each where its file is."""
        return [torch.from_numpy(piece.map()) for piece in self.snapshot.pieces[table_name(table)]]

    def blocks(self, table: int, device: torch.device) -> Iterator[Block]:
        """All rows of a table in order, a few at a time; made ones are on the device already."""
        if self._make:
            for first in range(0, self.config.rows[table], _BLOCK):
                count = min(_BLOCK, self.config.rows[table] - first)
                yield Block(first, self._make(table, first, count, self.config.dim, device))
            return
        first = 0
        for piece in self.mapped(table):
            for part in torch.split(piece, _BLOCK):
                yield Block(first, part.float())
                first += len(part)
