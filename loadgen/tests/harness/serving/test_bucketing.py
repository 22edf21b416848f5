"""Batches by cost: every sample once, the budget kept, nobody left behind."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.contracts import I64
from loadgen.harness.serving.bucketing import WINDOW, Batching, Costs, cut, longest_first, pick

COSTS = st.lists(st.integers(0, 500), max_size=200)
SOME = st.lists(st.integers(0, 500), min_size=1, max_size=200)
BUDGET = st.integers(1, 5000)
RULES = st.builds(
    Batching,
    max_batch=st.integers(1, 40),
    max_cost=st.none() | BUDGET,
    rule=st.sampled_from(["padded", "packed"]),
)


def cost(batch: list[int], rules: Batching) -> int:
    return sum(batch) if rules.rule == "packed" else max(batch) * len(batch)


def keeps_budget(batch: list[int], rules: Batching) -> bool:
    fits = rules.max_cost is None or cost(batch, rules) <= rules.max_cost or len(batch) == 1
    return fits and 1 <= len(batch) <= rules.max_batch


@given(COSTS, RULES)
def test_offline_takes_every_sample_once_longest_first(costs: list[int], rules: Batching) -> None:
    order = longest_first(np.array(costs, np.int64))
    assert sorted(order.tolist()) == list(range(len(costs)))
    falling = [costs[at] for at in order]
    assert falling == sorted(costs, reverse=True)
    begins = cut(np.array(falling, np.int64), rules)
    assert begins[0] == 0
    assert begins[-1] == len(costs)
    batches = [falling[low:high] for low, high in pairwise(begins)]
    assert all(keeps_budget(batch, rules) for batch in batches if batch or costs)


@given(COSTS, RULES)
def test_offline_leaves_no_room_that_the_next_sample_fits_in(costs: list[int], rules: Batching) -> None:
    falling = sorted(costs, reverse=True)
    begins = cut(np.array(falling, np.int64), rules)
    for low, high in pairwise(begins[:-1]):
        assert not keeps_budget(falling[low : high + 1], rules)


def test_equal_costs_keep_their_order() -> None:
    assert longest_first(np.array([5, 7, 5, 7, 5])).tolist() == [1, 3, 0, 2, 4]
    assert longest_first(np.array([5, 70_000, 5, 2**40])).tolist() == [3, 1, 0, 2]


@given(SOME, RULES)
def test_a_server_batch_has_the_oldest_and_keeps_the_budget(costs: list[int], rules: Batching) -> None:
    chosen, _ = pick(costs, rules)
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))
    assert keeps_budget([costs[at] for at in chosen], rules)


@given(SOME, RULES, st.integers(0, 500))
def test_nothing_joins_a_full_batch(costs: list[int], rules: Batching, later: int) -> None:
    chosen, is_full = pick(costs, rules)
    if is_full and rules.rule == "packed":
        assert pick([*costs, later], rules)[0] == chosen
    elif is_full:  # one that is nearer may take another's place, but the batch grows no more
        smallest = min(costs[at] for at in chosen)
        assert not keeps_budget([*(costs[at] for at in chosen), max(smallest, 1)], rules)


def test_packed_samples_may_be_of_any_size() -> None:
    rules = Batching(8, max_cost=10, rule="packed")
    assert pick([1, 7, 2, 1], rules) == ([0, 1, 2], True), "padded, 7 would leave room for none"
    assert pick([1, 7], rules) == ([0, 1], False)
    assert cut(np.array([9, 7, 2, 1, 1]), rules) == [0, 1, 4, 5]


@given(st.lists(st.lists(st.integers(0, 500), max_size=12), min_size=1, max_size=60), RULES)
def test_no_sample_starves(arrivals: list[list[int]], rules: Batching) -> None:
    """A batch goes out after each arrival: one that came behind n others is in the n+1st at the latest."""
    waiting: list[tuple[int, int, int]] = []  # name, cost, the last batch that it may be in
    gone: Counter[int] = Counter()
    name = batch_number = 0
    while waiting or batch_number < len(arrivals):
        for cost in arrivals[batch_number] if batch_number < len(arrivals) else []:
            waiting.append((name, cost, batch_number + len(waiting)))
            name += 1
        window = waiting[: WINDOW * rules.max_batch]
        chosen = pick([cost for _, cost, _ in window], rules)[0] if window else []
        for at in chosen:
            assert batch_number <= window[at][2]
        gone.update(window[at][0] for at in chosen)
        waiting = [sample for at, sample in enumerate(waiting) if at not in chosen]
        batch_number += 1
    assert gone == Counter(range(name))


def test_neighbours_in_cost_share_a_batch() -> None:
    assert pick([10, 300, 12, 290, 9, 11], Batching(4, max_cost=48))[0] == [0, 2, 4, 5]
    assert pick([300, 10, 290, 12], Batching(2, max_cost=10_000))[0] == [0, 2]


@pytest.mark.parametrize(("longest", "size"), [(0, 8), (10, 8), (100, 5), (500, 1), (501, 1)])
def test_room_of_a_padded_batch(longest: int, size: int) -> None:
    assert cut(np.full(9, longest), Batching(8, max_cost=500))[1] == size
    assert cut(np.full(9, longest), Batching(8))[1] == 8


class Lengths:
    """A dataset that counts how often it is asked."""

    name, total_count, performance_count = "lengths", 1_000_000, 1_000_000

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def load(self, indices: Any) -> None: ...

    def unload(self, indices: Any) -> None: ...

    def gather(self, indices: Any) -> Any: ...

    def costs(self, indices: I64) -> I64:
        self.asked.append(indices.tolist())
        return indices % 384


def test_costs_are_asked_as_a_column_and_once() -> None:
    dataset = Lengths()
    costs = Costs(dataset)
    costs.learn([5, 3, 400])
    assert costs.of([3, 400, 3]).tolist() == [3, 16, 3]
    assert costs.of([400, 8, 7, 8]).tolist() == [16, 8, 7, 8]
    assert dataset.asked == [[5, 3, 400], [7, 8]]


def test_a_million_samples_are_ordered_in_a_second() -> None:
    """Processor time, which neighbours on this machine do not stretch; measured: 0.1 s."""
    costs = Costs(Lengths())
    indices = np.random.default_rng(0).integers(0, 10_833, 1_000_000)
    began = time.process_time()
    known = costs.of(indices)
    cut(known[longest_first(known)], Batching(8, max_cost=3072))
    assert time.process_time() - began < 1
