"""What a backend gets: pairs of one or more samples, still where they lie.

In memory a pair's indices into all tables stand side by side, so that a sample is copied in one piece; in the files
each table has a column of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64

F32: TypeAlias = npt.NDArray[np.float32]
I32: TypeAlias = npt.NDArray[np.int32]


class Source(Protocol):
    """All pairs that samples are taken from."""

    @property
    def hots(self) -> tuple[int, ...]:
        """Indices that a pair has into each table."""

    def collect(self, starts: I64, counts: I64, dense: F32, indices: I32) -> None:
        """Copy `counts` pairs from each of `starts` on, one sample after another, into [n, 13] and [n, sum of hots]."""


@dataclass(frozen=True)
class Features:
    """Pairs in memory."""

    dense: F32
    """[n, 13]"""
    indices: I32
    """[n, sum of hots]: of each table in turn."""
    hots: tuple[int, ...]

    @property
    def columns(self) -> list[I32]:
        """[n, hot] of each table, none of them a copy."""
        return [self.indices[:, begin:end] for begin, end in pairwise(accumulate(self.hots, initial=0))]

    def collect(self, starts: I64, counts: I64, dense: F32, indices: I32) -> None:
        """See `Source`. A loop over samples: what there is to copy of one takes longer than the step."""
        at = 0
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
            dense[at : at + count] = self.dense[start : start + count]
            indices[at : at + count] = self.indices[start : start + count]
            at += count


@dataclass(frozen=True)
class Files:
    """Pairs in mapped files."""

    dense: F32
    """[n, 13]"""
    columns: tuple[I32, ...]
    """[n, hot] of each table."""

    @property
    def hots(self) -> tuple[int, ...]:
        return tuple(ids.shape[1] for ids in self.columns)

    def collect(self, starts: I64, counts: I64, dense: F32, indices: I32) -> None:
        """See `Source`."""
        rows = rows_of(starts, counts)
        dense[:] = self.dense[rows]
        for ids, (begin, end) in zip(self.columns, pairwise(accumulate(self.hots, initial=0)), strict=True):
            indices[:, begin:end] = ids[rows]


@dataclass(frozen=True)
class Batch:
    """Samples that are predicted together. A pair is a row of the model, whichever sample it is of."""

    source: Source
    starts: I64
    """The first pair of each sample in `source`."""
    counts: I64
    """Pairs of each sample."""

    def __len__(self) -> int:
        """Pairs."""
        return int(self.counts.sum())

    @property
    def hots(self) -> tuple[int, ...]:
        return self.source.hots

    def collect(self, dense: F32, indices: I32) -> None:
        """Copy the pairs, sample after sample, into [n, 13] and [n, sum of hots]."""
        self.source.collect(self.starts, self.counts, dense, indices)

    @cached_property
    def features(self) -> Features:
        """The pairs, sample after sample, in memory of their own."""
        dense = np.empty((len(self), 13), np.float32)
        indices = np.empty((len(self), sum(self.hots)), np.int32)
        self.collect(dense, indices)
        return Features(dense, indices, self.hots)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets no more than the batch's own pairs."""
        return Batch, (self.features, np.cumsum(self.counts) - self.counts, self.counts)


def rows_of(starts: I64, counts: I64) -> I64:
    """start, start + 1, ... of each sample, `counts` of them."""
    ends = np.cumsum(counts)
    rows: I64 = np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1])
    return rows
