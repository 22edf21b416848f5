"""How samples went through a system: sizes of batches, how many waited, and for how long they waited and were computed.

Added up by slices of time, which become wider as a run goes on: a run of any length keeps a few thousand numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from loadgen.contracts import Figures

_SLICES = 2048
_FIRST_S = 1 / 64  # width of a slice at first: 32 s until it doubles


class Flow:
    """Of one worker, whose thread alone adds to it. Times are those of `time.monotonic`."""

    def __init__(self) -> None:
        self.width_s = _FIRST_S
        self.began_s = 0.0
        """When the first sample came; times before it count as that."""
        self.sizes: dict[int, int] = {}
        """Size of a batch -> how many there were."""
        self.answered = [0.0] * _SLICES
        self.waited_s = [0.0] * _SLICES
        """Of the samples that were answered in each slice, together; so is `computed_s`."""
        self.computed_s = [0.0] * _SLICES
        self.waiting = [0.0] * _SLICES
        """The most samples that waited when a batch was taken."""

    def formed(self, size: int, at_s: float, waiting: int) -> None:
        """A batch of this size was taken from so many samples that waited."""
        self.sizes[size] = self.sizes.get(size, 0) + 1
        place = self._place(at_s)
        if waiting > self.waiting[place]:
            self.waiting[place] = waiting

    def done(self, count: int, at_s: float, waited_s: float, computed_s: float) -> None:
        """So many samples were answered, which together had waited and been computed for so long."""
        place = self._place(at_s)
        self.answered[place] += count
        self.waited_s[place] += waited_s
        self.computed_s[place] += computed_s

    def _place(self, at_s: float) -> int:
        place = int((at_s - self.began_s) / self.width_s)
        while place >= _SLICES:
            self.widen()
            place //= 2
        return max(0, place)

    def widen(self) -> None:
        """Two slices become one."""
        self.width_s *= 2
        self.answered, self.waited_s, self.computed_s = (
            _halved(column, sum) for column in (self.answered, self.waited_s, self.computed_s)
        )
        self.waiting = _halved(self.waiting, max)


def _halved(column: list[float], how: Callable[[tuple[float, float]], float]) -> list[float]:
    pairs = [how(pair) for pair in pairwise(column)][::2]
    return pairs + [0.0] * (_SLICES - len(pairs))


def measured(flows: Sequence[Flow]) -> Figures:
    """Of all workers together; empty if nothing was answered.

    Means and the longest queue; columns `batch_size` and `batches` (how many of that size); and of each slice of time
    `slice_end_s`, `slice_waiting` (the most samples), `slice_waited_s` and `slice_computed_s` (means of a sample; NaN
    where none was answered).
    """
    width = max((flow.width_s for flow in flows), default=0.0)
    for flow in flows:
        while flow.width_s < width:
            flow.widen()
    answered, waited, computed = (
        np.sum([getattr(flow, name) for flow in flows], axis=0) for name in ("answered", "waited_s", "computed_s")
    )
    if not np.any(answered):
        return {}
    waiting = np.max([flow.waiting for flow in flows], axis=0)
    slices = 1 + int(np.flatnonzero(answered + waiting)[-1])
    sizes = sorted({size for flow in flows for size in flow.sizes})
    batches = np.array([sum(flow.sizes.get(size, 0) for flow in flows) for size in sizes], np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {"slice_waited_s": waited / answered, "slice_computed_s": computed / answered}
    return {
        "batch_size_mean": float(np.dot(sizes, batches) / batches.sum()),
        "waiting_samples_max": float(waiting.max()),
        "waiting_mean_ns": 1e9 * float(waited.sum() / answered.sum()),
        "computing_mean_ns": 1e9 * float(computed.sum() / answered.sum()),
        "batch_size": np.array(sizes, np.int64),
        "batches": batches,
        "slice_end_s": width * np.arange(1, slices + 1),
        "slice_waiting": waiting[:slices],
        **{name: column[:slices] for name, column in means.items()},
    }
