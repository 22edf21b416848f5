"""Early stopping against the published values and a direct sum of the binomial distribution."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.early_stopping import max_over, min_under, tail_probability


@pytest.mark.parametrize(
    ("percentile", "none_over", "one_over"),
    [(0.9, 44, 63), (0.95, 90, 129), (0.99, 459, 661), (0.999, 4603, 6635)],
)
def test_published_minimum_counts(percentile: float, none_over: int, one_over: int) -> None:
    assert (min_under(0, percentile), min_under(1, percentile)) == (none_over, one_over)


@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from(["0.9", "0.95", "0.99", "0.5"]))
def test_the_tail_is_the_binomial_sum(under: int, over: int, percentile: str) -> None:
    n, p = under + over, Fraction(percentile)
    exact = sum(math.comb(n, k) * p ** (n - k) * (1 - p) ** k for k in range(over + 1))
    assert tail_probability(under, over, float(p)) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


@given(st.integers(0, 20_000), st.sampled_from([0.9, 0.97, 0.99]))
def test_max_over_is_the_largest_count_that_min_under_allows(n: int, percentile: float) -> None:
    most = max_over(n, percentile)
    assert most == -1 or min_under(most, percentile) + most <= n
    assert min_under(most + 1, percentile) + most + 1 > n
