"""Which samples share a batch: functions of costs alone, no threads and no clock.

A cost is what `Dataset.cost` says: tokens, frames, windows. A batch is padded to its longest sample, so it costs
that one's cost times its size. `budget` bounds this (None: nothing does); a sample that exceeds it goes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.contracts import Dataset

WINDOW = 4
"""A batch is chosen from the oldest `WINDOW * max_batch` waiting samples: enough to find equal lengths in."""

I64 = npt.NDArray[np.int64]


class Costs:
    """`Dataset.cost` of each sample, asked once. Threads may share it: they would write the same."""

    def __init__(self, dataset: Dataset) -> None:
        self._cost = dataset.cost
        self._known = np.full(dataset.total_count, -1, np.int64)

    def of(self, indices: Sequence[int] | npt.NDArray[Any]) -> I64:
        """Costs of loaded samples, in the order of `indices`."""
        wanted = np.asarray(indices, np.int64)
        found: I64 = self._known[wanted]
        missing = wanted[found < 0]
        if len(missing):
            asked = list(set(missing.tolist()))
            self._known[asked] = list(map(self._cost, asked))
            found = self._known[wanted]
        return found


def room(longest: int, max_batch: int, budget: int | None) -> int:
    """How many samples a batch may hold if its longest costs `longest`; at least one."""
    return max_batch if budget is None else max(1, min(max_batch, budget // max(longest, 1)))


def longest_first(costs: I64) -> I64:
    """Positions by falling cost; equal costs keep their order."""
    gaps = costs.max(initial=0) - costs
    narrow = gaps.astype(np.min_scalar_type(gaps.max(initial=0)))  # below 2**16 numpy sorts in linear time
    order: I64 = np.argsort(narrow, kind="stable")
    return order


def cut(falling: I64, max_batch: int, budget: int | None) -> list[int]:
    """Where the batches of samples sorted by falling cost begin, and at last where they end."""
    count = len(falling)
    if budget is None:
        return [*range(0, count, max_batch), count]
    begins = [0] if count else []
    while begins and begins[-1] < count:
        low = begins[-1]
        begins.append(min(count, low + room(int(falling[low]), max_batch, budget)))
    return begins or [0]


def nearest(costs: Sequence[int] | I64, max_batch: int, budget: int | None) -> list[int]:
    """Positions of one batch from waiting samples, oldest first; rising.

    The oldest goes, and with it those whose costs are nearest to its own, so that little is padding. As the
    oldest always goes, one that has n older ones beside it waits for n batches at most.
    """
    waiting = np.asarray(costs, np.int64)
    known = waiting.tolist()
    chosen: list[int] = []
    longest = 0
    for at in np.argsort(np.abs(waiting - waiting[0]), kind="stable").tolist():
        higher = max(longest, known[at])
        if len(chosen) < room(higher, max_batch, budget):
            chosen.append(at)
            longest = higher
        elif len(chosen) >= room(longest, max_batch, budget):
            break
    return sorted(chosen)
