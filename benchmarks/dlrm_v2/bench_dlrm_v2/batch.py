"""What a backend gets: pairs of one or more samples, still where the data lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64

F32: TypeAlias = npt.NDArray[np.float32]
I32: TypeAlias = npt.NDArray[np.int32]


class Features(NamedTuple):
    """Columns of n pairs."""

    dense: F32
    """[n, 13]"""
    indices: tuple[I32, ...]
    """[n, hot] of each table."""


@dataclass(frozen=True)
class Batch:
    """Samples that are predicted together. A pair is a row of the model, whichever sample it is of."""

    source: Features
    """All pairs of the data, or those of this batch alone."""
    starts: I64
    """The first pair of each sample in `source`."""
    counts: I64
    """Pairs of each sample."""

    def __len__(self) -> int:
        """Pairs."""
        return int(self.counts.sum())

    @cached_property
    def rows(self) -> I64:
        """[n]: the pairs in `source`, sample after sample."""
        return rows_of(self.starts, self.counts)

    @cached_property
    def features(self) -> Features:
        """Of this batch alone; one sample's are where they lie, several are copied together."""
        dense, indices = self.source
        if len(self.starts) == 1:
            part = slice(int(self.starts[0]), int(self.starts[0] + self.counts[0]))
            return Features(dense[part], tuple(ids[part] for ids in indices))
        return Features(dense[self.rows], tuple(ids[self.rows] for ids in indices))

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets no more than the batch's own pairs."""
        dense, indices = self.features
        plain = Features(np.array(dense), tuple(np.array(ids) for ids in indices))  # mapped files are no plain arrays
        return Batch, (plain, np.cumsum(self.counts) - self.counts, self.counts)


def rows_of(starts: I64, counts: I64) -> I64:
    """start, start + 1, ... of each sample, `counts` of them."""
    ends = np.cumsum(counts)
    rows: I64 = np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1])
    return rows
