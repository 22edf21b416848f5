"""Times between the tokens of a request, over all requests of a run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64
from loadgen.results import PERCENTILES

_STEP = np.log(1.01)
_BINS = int(np.log(3.6e12) / _STEP) + 1  # up to an hour


class Gaps:
    """A histogram whose bins are 1 % wide: a run of millions of tokens keeps no list of them.

    Tokens that come together are one arrival: speculation gives fewer and longer gaps, and more tokens in each.
    """

    def __init__(self) -> None:
        self._last = np.zeros(1024, np.int64)
        self._counts: npt.NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self._total = 0.0

    def add(self, requests: I64, at_ns: int) -> None:
        """At this time each of these requests got tokens. The first time is no gap."""
        if not len(requests):
            return
        if requests.max() >= len(self._last):
            self._last = np.pad(self._last, (0, int(requests.max())))
        before = self._last[requests]
        gaps = np.maximum(1, at_ns - before[before > 0])
        self._last[requests] = at_ns
        self._counts += np.bincount((np.log(gaps) / _STEP).astype(np.int64), minlength=_BINS)[:_BINS]
        self._total += float(gaps.sum())

    def measured(self) -> Mapping[str, float]:
        """`between_tokens_..._ns`: min, mean, max and percentiles, to 1 %; empty without a gap."""
        count = int(self._counts.sum())
        if not count:
            return {}
        ranks = np.cumsum(self._counts)
        shares = {f"{100 * share:.2f}_percentile": share for share in PERCENTILES}
        found = {name: np.searchsorted(ranks, share * count) for name, share in shares.items()}
        filled = np.flatnonzero(self._counts)
        found |= {"min": filled[0], "max": filled[-1]}
        values = {name: float(np.exp((bin + 0.5) * _STEP)) for name, bin in found.items()}
        return {f"between_tokens_{name}_ns": value for name, value in {**values, "mean": self._total / count}.items()}
