"""Which samples share a batch: functions of costs alone, no threads and no clock.

A cost is what `Dataset.costs` says: tokens, frames, pairs, windows. A batch that is padded to its longest sample costs
that one's cost times its size, one that is packed the sum of all. A sample that exceeds the budget goes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64, Dataset

WINDOW = 4
"""A batch is chosen from the oldest `WINDOW * max_batch` waiting samples: enough to find equal lengths in."""


@dataclass(frozen=True)
class Batching:
    """What a batch may be, and how long it may be waited for."""

    max_batch: int
    """Samples."""
    max_wait_s: float = 0.0
    """After so long the first sample goes, with what has joined it."""
    max_cost: int | None = None
    """Budget of a batch; None: only the number of samples counts."""
    rule: Literal["padded", "packed"] = "padded"
    """What a batch costs: longest times count, or sum."""


class Costs:
    """`Dataset.costs` of each sample, as far as it was asked."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._ask = dataset.costs
        self._known = np.full(dataset.total_count, -1, np.int64)

    def learn(self, indices: Sequence[int] | I64) -> None:
        """Ask for loaded samples, in one call: while the clock is stopped."""
        wanted = np.asarray(indices, np.int64)
        self._known[wanted] = self._ask(wanted)

    def of(self, indices: Sequence[int] | I64) -> I64:
        """Costs in the order of `indices`; those that nobody learnt are asked for now."""
        wanted = np.asarray(indices, np.int64)
        found: I64 = self._known[wanted]
        if (found < 0).any():
            self.learn(np.unique(wanted[found < 0]))
            found = self._known[wanted]
        return found


def longest_first(costs: I64) -> I64:
    """Positions by falling cost; equal costs keep their order."""
    gaps = costs.max(initial=0) - costs
    narrow = gaps.astype(np.min_scalar_type(gaps.max(initial=0)))  # below 2**16 numpy sorts in linear time
    order: I64 = np.argsort(narrow, kind="stable")
    return order


def cut(falling: I64, rules: Batching) -> list[int]:
    """Where the batches of samples sorted by falling cost begin, and at last where they end."""
    count = len(falling)
    if rules.max_cost is None:
        return [*range(0, count, rules.max_batch), count]
    sums = np.cumsum(falling) if rules.rule == "packed" else None
    begins = [0]
    while begins[-1] < count:
        low = begins[-1]
        if sums is None:
            size = _room(int(falling[low]), rules.max_batch, rules.max_cost)
        else:
            budget = int(sums[low] - falling[low]) + rules.max_cost
            size = max(1, min(rules.max_batch, int(np.searchsorted(sums, budget, side="right")) - low))
        begins.append(min(count, low + size))
    return begins


def pick(costs: Sequence[int] | I64, rules: Batching) -> tuple[list[int], bool]:
    """(positions of one batch from waiting samples, oldest first, rising; could no later sample join it?).

    The oldest goes. Padded, those go with it whose costs are nearest to its own, so that little is padding; packed, the
    next oldest. As the oldest always goes, one that has n older ones beside it waits for n batches at most.
    """
    waiting = np.asarray(costs, np.int64)
    if rules.max_cost is None:
        chosen = list(range(min(len(waiting), rules.max_batch)))
        return chosen, len(chosen) == rules.max_batch
    if rules.rule == "packed":
        fitting = int(np.searchsorted(np.cumsum(waiting), rules.max_cost, side="right"))
        chosen = list(range(max(1, min(len(waiting), rules.max_batch, fitting))))
        is_full = len(chosen) == rules.max_batch or int(waiting[chosen].sum()) >= rules.max_cost
        return chosen, is_full or len(chosen) < len(waiting)
    chosen = _nearest(waiting, rules.max_batch, rules.max_cost)
    return chosen, len(chosen) >= _room(int(waiting[chosen].max()), rules.max_batch, rules.max_cost)


def _nearest(waiting: npt.NDArray[np.int64], max_batch: int, budget: int) -> list[int]:
    known = waiting.tolist()
    chosen: list[int] = []
    longest = 0
    for at in np.argsort(np.abs(waiting - waiting[0]), kind="stable").tolist():
        higher = max(longest, known[at])
        if len(chosen) < _room(higher, max_batch, budget):
            chosen.append(at)
            longest = higher
        elif len(chosen) >= _room(longest, max_batch, budget):
            break
    return sorted(chosen)


def _room(longest: int, max_batch: int, budget: int) -> int:
    """How many samples a padded batch may hold if its longest costs `longest`; at least one."""
    return max_batch if not longest else max(1, min(max_batch, budget // longest))
