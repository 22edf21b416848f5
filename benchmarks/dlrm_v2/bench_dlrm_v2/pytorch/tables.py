"""Embedding tables in memory, and the sums of their rows.

A CPU uses float32 tables where their files are mapped. Everywhere else all tables of a device are one block of rows, in
float32, float16 or 8 bits with a scale for each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from bench_dlrm_v2.config import DlrmConfig
from bench_dlrm_v2.pytorch.source import Source
from loadgen.contracts import InputError
from loadgen.memory import available_bytes

STORED = {"float32": torch.float32, "bfloat16": torch.float32, "float16": torch.float16, "int8": torch.int8}
"""`--dtype` -> how rows are stored. bfloat16 keeps them: halving 24 bits would cost more than the memory is worth."""
COMPUTED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.bfloat16}
"""`--dtype` -> what everything else is computed in."""
_LEVELS = 127  # of 8 bits on each side of zero
_SPARE = 0.06  # of a GPU's memory, for a batch and what PyTorch and CUDA keep
_COPIED = 64 << 20  # bytes: a smaller table in several files is copied into one piece of memory


class Mapped:
    """float32 tables where their files are: nothing is read but the pages that a batch needs."""

    def __init__(self, source: Source, copied_bytes: int = _COPIED) -> None:
        """Raises InputError that names a file that is missing or cut off."""
        self._tables: list[list[Tensor]] = []
        for number, rows in enumerate(source.config.rows):
            pieces = [piece.float() for piece in source.mapped(number)]
            is_small = rows * source.config.dim * 4 <= copied_bytes
            self._tables.append([torch.cat(pieces)] if is_small and len(pieces) > 1 else pieces)

    def bags(self, indices: Sequence[Tensor]) -> Tensor:
        """float32 [n, tables * dim] of indices [n, hot] of each table."""
        return torch.cat([_bag(pieces, ids) for pieces, ids in zip(self._tables, indices, strict=True)], dim=1)


def _bag(pieces: list[Tensor], ids: Tensor) -> Tensor:
    if len(pieces) == 1:
        return F.embedding_bag(ids, pieces[0], mode="sum")
    found = pieces[0].new_empty((ids.numel(), pieces[0].shape[1]))
    ordered, order = ids.reshape(-1).long().sort()
    begins = torch.tensor([0, *accumulate(len(piece) for piece in pieces)])
    cuts = torch.searchsorted(ordered, begins).tolist()
    for piece, begin, low, high in zip(pieces, begins.tolist(), cuts, cuts[1:], strict=False):
        if high > low:
            found[order[low:high]] = piece[ordered[low:high] - begin]
    return found.view(*ids.shape, -1).sum(dim=1)


class Resident:
    """All rows of some tables in the memory of one device, stored in any of STORED."""

    def __init__(self, source: Source, tables: Sequence[int], stored: torch.dtype, device: torch.device) -> None:
        """Streams them there: no table is in memory twice. Raises InputError for files, and if they do not fit."""
        config = source.config
        self.tables = tuple(tables)
        self.counts = [config.rows[table] for table in tables]
        self.firsts = list(accumulate(self.counts, initial=0))
        check_room(stored_bytes(config, self.tables, stored), device)
        self.rows = torch.empty((self.firsts[-1], config.dim), dtype=stored, device=device)
        is_scaled = stored == torch.int8
        self.scales = torch.empty(self.firsts[-1], device=device) if is_scaled else None
        for table, begin in zip(tables, self.firsts, strict=False):
            for first, values in source.blocks(table, device):
                place = slice(begin + first, begin + first + len(values))
                self._store(place, values.to(device), f"table t_cat_{table}")

    def _store(self, place: slice, values: Tensor, name: str) -> None:
        if self.scales is not None:
            self.rows[place], self.scales[place] = quantised(values)
            return
        self.rows[place] = values
        if self.rows.dtype == torch.float16 and not self.rows[place].isfinite().all():
            raise InputError(f"{name} has values beyond float16's 65,504, or that are no numbers: use --dtype float32")

    def bags(self, indices: Sequence[Tensor]) -> Tensor:
        """float32 [n, tables * dim] of indices [n, hot] of each of these tables, by PyTorch's own functions."""
        return torch.cat([self._bag(at, ids) for at, ids in enumerate(indices)], dim=1)

    def _bag(self, at: int, ids: Tensor) -> Tensor:
        if self.rows.dtype == torch.float32:
            return F.embedding_bag(ids, self.rows[self.firsts[at] : self.firsts[at + 1]], mode="sum")
        wanted = ids.reshape(-1).long() + self.firsts[at]
        values = self.rows[wanted].float()
        if self.scales is not None:
            values *= self.scales[wanted, None]
        return values.view(*ids.shape, -1).sum(dim=1)


def quantised(values: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 [rows, dim], float32 [rows]): no value is off by more than half the scale, 1/254 of its row's largest."""
    scales = values.abs().amax(dim=1) / _LEVELS
    return torch.round(values / scales.clamp_min(1e-30)[:, None]).to(torch.int8), scales


def stored_bytes(config: DlrmConfig, tables: Iterable[int], stored: torch.dtype) -> int:
    """Of all rows of these tables: 104.5 GB in float32, 52.3 GB in float16, 27.0 GB in int8 for the official 26."""
    scale = 4 if stored == torch.int8 else 0
    return sum(config.rows[table] for table in tables) * (config.dim * stored.itemsize + scale)


def check_room(needed: int, device: torch.device) -> None:
    """Raise InputError if the device has not that many bytes free, and some to compute in."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        advice = "use --dtype float16 or int8, --gpus-per-worker to spread the tables, or --profile capped"
    else:
        free = available_bytes() or needed
        advice = "use --profile capped; of the official files a CPU reads float32 tables where they lie"
    room = int(free * (1 - _SPARE))
    if needed > room:
        raise InputError(f"the tables need {needed / 1e9:.1f} GB of {device}, {room / 1e9:.1f} GB are free: {advice}")


def spread(config: DlrmConfig, parts: int) -> list[list[int]]:
    """Tables for each of so many devices: the largest first, each to the device with the fewest rows."""
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [0] * parts
    for table in sorted(range(len(config.rows)), key=lambda number: -config.rows[number]):
        least = loads.index(min(loads))
        shares[least].append(table)
        loads[least] += config.rows[table]
    return [sorted(share) for share in shares]
