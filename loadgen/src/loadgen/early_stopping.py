"""Early stopping: how many queries a percentile claim needs. Pure maths, counts in, counts out.

A run supports "at most 1 - p of queries are over the limit" with confidence c if, were exactly 1 - p
of them over, seeing so few over-limit queries among so many would have probability below 1 - c. With
`under` queries within the limit and `over` beyond it, that probability is the regularised incomplete
beta function I_p(under, over + 1). Source: the official LoadGen's early_stopping.cc, with tolerance 0.
"""

from __future__ import annotations

import math

CONFIDENCE = 0.99  # of the official rules


def _log_choose_term(n: int, k: int, p: float) -> float:
    """log of C(n, k) p^(n-k) (1-p)^k."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + (n - k) * math.log(p) + k * math.log1p(-p)


def tail_probability(under: int, over: int, percentile: float) -> float:
    """P[at most `over` of `under + over` queries are over the limit] if each is with 1 - percentile.

    Sums the tail that falls away from `over`, so terms only shrink and few are needed.
    """
    n, odds = under + over, percentile / (1 - percentile)
    upper = over >= n * (1 - percentile)
    k = over + 1 if upper else over
    if k > n:
        return 1.0
    total, term = 0.0, 1.0  # relative to the first term
    first = math.exp(_log_choose_term(n, k, percentile))
    while 0 <= k <= n and term > 1e-17 * total:
        total += term
        term *= (n - k) / ((k + 1) * odds) if upper else k * odds / (n - k + 1)
        k += 1 if upper else -1
    return 1.0 - first * total if upper else first * total


def min_under(over: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """h(t): the fewest queries within the limit that make up for `over` queries beyond it."""
    low, high = 0, max(1, math.ceil(math.log(1 - confidence) / math.log(percentile)))
    while tail_probability(high, over, percentile) >= 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if tail_probability(middle, over, percentile) < 1 - confidence:
            high = middle
        else:
            low = middle
    return high


def max_over(n: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """The most over-limit queries among `n` that still support the percentile; -1 if none do.

    h(t) + t <= n exactly if n - t queries within the limit are enough for t beyond it, so one
    probability an attempt decides, not a search for h(t).
    """
    low, high = -1, n + 1  # -1 is the answer if none is supported, n + 1 never is
    while high - low > 1:
        middle = (low + high) // 2
        if tail_probability(n - middle, middle, percentile) < 1 - confidence:
            low = middle
        else:
            high = middle
    return low
