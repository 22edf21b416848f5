"""Random numbers: against the reference algorithms written the slow way, and the C++ standard's check value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.generation.rng import (
    Mt19937,
    canonicals,
    exponential_gaps_ns,
    shuffle,
    skip_shuffles,
    uniform_ints,
    varied_ints,
)

SEEDS = st.integers(0, 2**64 - 1)


def test_the_10000th_number_is_the_standards() -> None:
    """[rand.predef]: the 10,000th consecutive invocation of a default std::mt19937 gives 4123659995."""
    assert int(Mt19937(5489).raws(10_000)[-1]) == 4123659995


def test_a_seed_is_taken_modulo_32_bits() -> None:
    assert Mt19937(2**32 + 7).raws(5).tolist() == Mt19937(7).raws(5).tolist()


def slow_draw(raws: list[int], span: int) -> int:
    """Lemire's method for one number, as libstdc++ writes it."""
    while True:
        product = raws.pop(0) * span
        if product & 0xFFFFFFFF >= (2**32 - span) % span:
            return product >> 32


def slow_shuffle(raws: list[int], values: list[int]) -> None:
    """std::shuffle as libstdc++ writes it: two positions from one draw while n * n fits in 32 bits."""
    n = len(values)
    if n < 2:
        return
    if (2**32 - 1) // n < n:
        for i in range(1, n):
            j = slow_draw(raws, i + 1)
            values[i], values[j] = values[j], values[i]
        return
    i = 1
    if n % 2 == 0:
        j = slow_draw(raws, 2)
        values[1], values[j] = values[j], values[1]
        i = 2
    while i < n:
        both = slow_draw(raws, (i + 1) * (i + 2))
        for position, j in ((i, both // (i + 2)), (i + 1, both % (i + 2))):
            values[position], values[j] = values[j], values[position]
        i += 2


@given(SEEDS, st.integers(1, 2**32 - 1), st.integers(0, 200))
def test_uniform_ints_draw_as_lemire(seed: int, span: int, count: int) -> None:
    rng, raws = Mt19937(seed), Mt19937(seed).raws(3000).tolist()
    assert uniform_ints(rng, count, span).tolist() == [slow_draw(raws, span) for _ in range(count)]
    assert rng.raws(1)[0] == raws[0], "the stream goes on where the draws ended"


@given(SEEDS, st.lists(st.integers(1, 2**32 - 1), max_size=150))
def test_varied_ints_draw_as_lemire(seed: int, spans: list[int]) -> None:
    rng, raws = Mt19937(seed), Mt19937(seed).raws(3000).tolist()
    assert varied_ints(rng, np.array(spans, np.uint64)).tolist() == [slow_draw(raws, span) for span in spans]
    assert rng.raws(1)[0] == raws[0]


@given(SEEDS, st.integers(0, 400))
def test_shuffle_is_the_standard_librarys(seed: int, n: int) -> None:
    ours, theirs, raws = list(range(n)), list(range(n)), Mt19937(seed).raws(3000).tolist()
    shuffle(Mt19937(seed), ours)
    slow_shuffle(raws, theirs)
    assert ours == theirs


@pytest.mark.parametrize("n", [65535, 65536])
def test_shuffle_changes_its_method_where_the_librarys_does(n: int) -> None:
    ours, theirs, raws = list(range(n)), list(range(n)), Mt19937(3).raws(4 * n)[::-1].tolist()

    class Reversed(list):  # type: ignore[type-arg]
        def pop(self, _: int = 0) -> int:  # from the end: popping a list's head is slow
            return int(super().pop())

    shuffle(Mt19937(3), ours)
    slow_shuffle(Reversed(raws), theirs)
    assert ours == theirs


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 3000), st.integers(0, 20))
def test_skipping_shuffles_consumes_what_they_do(seed: int, n: int, times: int) -> None:
    skipped, shuffled, values = Mt19937(seed), Mt19937(seed), list(range(n))
    skip_shuffles(skipped, n, times)
    for _ in range(times):
        shuffle(shuffled, values)
    assert skipped.raws(3).tolist() == shuffled.raws(3).tolist()


@given(SEEDS)
def test_canonicals_are_in_the_unit_interval(seed: int) -> None:
    values = canonicals(Mt19937(seed), 100)
    raws = Mt19937(seed).raws(2).tolist()
    assert values[0] == (raws[0] + raws[1] * 2.0**32) / 2.0**64
    assert ((values >= 0) & (values < 1)).all()


@given(SEEDS, st.floats(0.01, 1e7))
def test_gaps_are_those_of_the_c_librarys_logarithm(seed: int, rate: float) -> None:
    gaps = exponential_gaps_ns(Mt19937(seed), 200, rate)
    uniforms = canonicals(Mt19937(seed), 200)
    assert gaps.tolist() == [int(-math.log(1.0 - float(u)) / rate * 1e9) for u in uniforms]
