"""Random numbers exactly as libstdc++ makes them, in whole columns.

The official LoadGen draws from `std::mt19937` through libstdc++'s distributions (GCC 11 and later),
so equal seeds give equal tests only if every raw number is used in the same order and way.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.random import RandomState  # takes 10 ms to import, which no test should

from loadgen.contracts import I64

U64: TypeAlias = "npt.NDArray[np.uint64]"
Indices: TypeAlias = "npt.NDArray[np.integer[Any]]"
F64: TypeAlias = "npt.NDArray[np.float64]"

DEFAULT_SEED = 5489  # std::mt19937's, used by the official LoadGen where it never seeds
_LOW_32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_BLOCK = 1 << 16  # numbers held ahead; bounds memory, not results
_SELDOM = 256  # numbers of which at most one is rejected, for a pass over columns to be worth it


class Mt19937:
    """The `std::mt19937` stream. `peek` looks ahead, `skip` consumes, so nothing drawn is lost."""

    def __init__(self, seed: int) -> None:
        # The official code passes a 64-bit seed to a generator that takes it modulo 2**32.
        self._state = RandomState(seed & 0xFFFFFFFF)
        self._ahead: U64 = np.empty(0, np.uint64)

    def peek(self, count: int) -> U64:
        """The next `count` raw 32-bit numbers, not consumed."""
        missing = count - len(self._ahead)
        if missing > 0:
            fresh = self._state.randint(0, 1 << 32, size=missing, dtype=np.uint32)
            self._ahead = np.concatenate([self._ahead, fresh.astype(np.uint64)])
        return self._ahead[:count]

    def skip(self, count: int) -> None:
        """Consume `count` numbers that `peek` has shown."""
        self._ahead = self._ahead[count:]

    def raws(self, count: int) -> U64:
        """Consume and return `count` raw numbers."""
        numbers = self.peek(count).copy()
        self.skip(count)
        return numbers


def uniform_ints(rng: Mt19937, count: int, span: int, pool: Indices | None = None) -> Indices:
    """`count` draws of `std::uniform_int_distribution(0, span - 1)`; with a pool, its elements at those positions.

    int64, or the pool's type.

    Lemire's method: the high word of raw * span, redrawn while the low word is under the threshold.
    A span of one still consumes a number a draw, as in libstdc++.
    """
    out: Indices = np.empty(count, np.int64 if pool is None else pool.dtype)
    threshold = np.uint64((2**32 - span) % span)
    filled = 0
    while filled < count:
        raws = rng.peek(min(count - filled, _BLOCK))
        products = raws * np.uint64(span)
        if threshold:
            products = products[(products & _LOW_32) >= threshold]
        kept = products >> _32
        out[filled : filled + len(kept)] = kept if pool is None else pool[kept]
        filled += len(kept)
        rng.skip(len(raws))
    return out


def varied_ints(rng: Mt19937, spans: U64) -> I64:
    """One draw for each span: element k is uniform over 0 .. spans[k] - 1. Spans up to 2**32 - 1.

    A rejected number shifts all later ones. Where few are, each pass goes up to the first; else one draw follows
    another.
    """
    out = np.empty(len(spans), np.int64)
    thresholds = (np.uint64(2**32) - spans) % spans
    filled = 0
    while filled < len(spans):
        window = slice(filled, min(filled + _BLOCK, len(spans)))
        often = np.flatnonzero(thresholds[window] > 2**32 // _SELDOM)
        seldom = int(often[0]) if len(often) else window.stop - filled
        if seldom < _SELDOM:
            window = slice(filled, min(filled + 8 * _SELDOM, len(spans)))
            out[window] = _one_by_one(rng, spans[window].tolist(), thresholds[window].tolist())
            filled = window.stop
            continue
        window = slice(filled, filled + seldom)
        raws = rng.peek(seldom)
        products = raws * spans[window]
        rejected = np.flatnonzero((products & _LOW_32) < thresholds[window])
        good = int(rejected[0]) if len(rejected) else len(raws)
        out[filled : filled + good] = products[:good] >> _32
        rng.skip(good + (1 if len(rejected) else 0))
        filled += good
    return out


def _one_by_one(rng: Mt19937, spans: list[int], thresholds: list[int]) -> list[int]:
    """As `varied_ints`."""
    raws = rng.peek(4 * len(spans) + 64).tolist()  # a threshold is below its span, so that half are taken at least
    out, used = [], 0
    for span, threshold in zip(spans, thresholds, strict=True):
        if used + 64 > len(raws):
            raws = rng.peek(2 * len(raws)).tolist()
        product = raws[used] * span
        used += 1
        while product & 0xFFFFFFFF < threshold:
            product = raws[used] * span
            used += 1
        out.append(product >> 32)
    rng.skip(used)
    return out


def _shuffle_spans(n: int) -> U64:
    """The spans of the draws that `std::shuffle` of n elements makes, in order."""
    if n < 2:
        return np.empty(0, np.uint64)
    if (2**32 - 1) // n < n:  # n > 65535: one draw an element
        return np.arange(2, n + 1, dtype=np.uint64)
    # Two swap positions from one draw of span s * (s + 1); an even n swaps its second element alone.
    first = np.arange(2 if n % 2 else 3, n, 2, dtype=np.uint64)
    pairs = first * (first + np.uint64(1))
    return pairs if n % 2 else np.concatenate([np.array([2], np.uint64), pairs])


def _swap_targets(n: int, draws: I64) -> list[int]:
    """For element i = 1 .. n - 1 in turn: the position that it is swapped with."""
    if (2**32 - 1) // n < n:
        return draws.tolist()  # type: ignore[no-any-return]
    lone = 0 if n % 2 else 1
    divisors = np.arange(2 + lone, n, 2, dtype=np.int64) + 1  # s + 1 for each pair
    targets = np.empty(n - 1, np.int64)
    targets[:lone] = draws[:lone]
    targets[lone::2] = draws[lone:] // divisors
    targets[lone + 1 :: 2] = draws[lone:] % divisors
    return targets.tolist()


def shuffle(rng: Mt19937, values: list[int]) -> None:
    """`std::shuffle` in place."""
    n = len(values)
    if n < 2:
        return
    targets = _swap_targets(n, varied_ints(rng, _shuffle_spans(n)))
    for i, j in enumerate(targets, 1):
        value = values[i]
        values[i] = values[j]
        values[j] = value


def skip_shuffles(rng: Mt19937, n: int, times: int) -> None:
    """Consume exactly the numbers that `times` shuffles of n elements would."""
    spans = _shuffle_spans(n)
    at_once = max(1, _BLOCK // max(1, len(spans)))
    while times > 0 and len(spans):
        varied_ints(rng, np.tile(spans, min(times, at_once)))
        times -= at_once


def canonicals(rng: Mt19937, count: int) -> F64:
    """`std::generate_canonical<double, 53>`: two raw numbers each, in [0, 1)."""
    raws = rng.raws(2 * count).astype(np.float64)
    values: F64 = (raws[0::2] + raws[1::2] * 2.0**32) / 2.0**64
    return np.minimum(values, np.nextafter(1.0, 0.0))


def exponential_gaps_ns(rng: Mt19937, count: int, rate: float) -> I64:
    """Gaps of a Poisson process in whole nanoseconds (truncated). rate: events a second.

    numpy's logarithm may differ from the C library's in the last place. That matters only where it
    moves a gap across a whole nanosecond, so gaps that close to one are taken from `math.log`.
    """
    uniforms = canonicals(rng, count)
    gaps = (-np.log(1.0 - uniforms) / rate) * 1e9
    # a few units in the last place, with room to spare
    near = np.abs(gaps - np.rint(gaps)) <= np.maximum(gaps, 1.0) * 2.0**-46
    for k in np.flatnonzero(near):
        gaps[k] = (-math.log(1.0 - float(uniforms[k])) / rate) * 1e9
    return gaps.astype(np.int64)
