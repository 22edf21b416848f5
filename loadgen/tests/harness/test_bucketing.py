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

from loadgen.harness.serving.bucketing import WINDOW, Costs, cut, longest_first, nearest, room

COSTS = st.lists(st.integers(0, 500), max_size=200)
MAX_BATCH = st.integers(1, 40)
BUDGET = st.none() | st.integers(1, 5000)


def keeps_budget(costs: list[int], max_batch: int, budget: int | None) -> bool:
    fits = budget is None or max(costs) * len(costs) <= budget or len(costs) == 1
    return fits and 1 <= len(costs) <= max_batch


@given(COSTS, MAX_BATCH, BUDGET)
def test_offline_takes_every_sample_once_longest_first(costs: list[int], max_batch: int, budget: int | None) -> None:
    order = longest_first(np.array(costs, np.int64))
    assert sorted(order.tolist()) == list(range(len(costs)))
    falling = [costs[at] for at in order]
    assert falling == sorted(costs, reverse=True)
    begins = cut(np.array(falling, np.int64), max_batch, budget)
    assert begins[0] == 0
    assert begins[-1] == len(costs)
    batches = [falling[low:high] for low, high in pairwise(begins)]
    assert all(keeps_budget(batch, max_batch, budget) for batch in batches)


@given(COSTS, MAX_BATCH, st.integers(1, 5000))
def test_offline_leaves_no_room_that_the_next_sample_fits_in(costs: list[int], max_batch: int, budget: int) -> None:
    falling = np.array(sorted(costs, reverse=True), np.int64)
    begins = cut(falling, max_batch, budget)
    for low, high in pairwise(begins[:-1]):
        assert high - low == room(int(falling[low]), max_batch, budget)


def test_equal_costs_keep_their_order() -> None:
    assert longest_first(np.array([5, 7, 5, 7, 5])).tolist() == [1, 3, 0, 2, 4]
    assert longest_first(np.array([5, 70_000, 5, 2**40])).tolist() == [3, 1, 0, 2]


@given(st.lists(st.integers(0, 500), min_size=1, max_size=200), MAX_BATCH, BUDGET)
def test_a_server_batch_has_the_oldest_and_keeps_the_budget(
    costs: list[int], max_batch: int, budget: int | None
) -> None:
    chosen = nearest(costs, max_batch, budget)
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))
    assert keeps_budget([costs[at] for at in chosen], max_batch, budget)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), MAX_BATCH)
def test_without_a_budget_no_sample_left_behind_is_nearer(costs: list[int], max_batch: int) -> None:
    chosen = nearest(costs, max_batch, None)
    gaps = [abs(cost - costs[0]) for cost in costs]
    left = [gaps[at] for at in range(len(costs)) if at not in chosen]
    assert len(chosen) == min(max_batch, len(costs))
    assert not left or max(gaps[at] for at in chosen) <= min(left)


@given(st.lists(st.lists(st.integers(0, 500), max_size=12), min_size=1, max_size=60), st.integers(1, 8), BUDGET)
def test_no_sample_starves(arrivals: list[list[int]], max_batch: int, budget: int | None) -> None:
    """A batch goes out after each arrival: one that came behind n others is in the n+1st at the latest."""
    waiting: list[tuple[int, int, int]] = []  # name, cost, the last batch that it may be in
    gone: Counter[int] = Counter()
    name = batch_number = 0
    while waiting or batch_number < len(arrivals):
        for cost in arrivals[batch_number] if batch_number < len(arrivals) else []:
            waiting.append((name, cost, batch_number + len(waiting)))
            name += 1
        window = waiting[: WINDOW * max_batch]
        chosen = nearest([cost for _, cost, _ in window], max_batch, budget) if window else []
        for at in chosen:
            assert batch_number <= window[at][2]
        gone.update(window[at][0] for at in chosen)
        waiting = [sample for at, sample in enumerate(waiting) if at not in chosen]
        batch_number += 1
    assert gone == Counter(range(name))


def test_neighbours_in_cost_share_a_batch() -> None:
    assert nearest([10, 300, 12, 290, 9, 11], 4, 48) == [0, 2, 4, 5]
    assert nearest([300, 10, 290, 12], 2, 10_000) == [0, 2]


@pytest.mark.parametrize(("longest", "size"), [(0, 8), (10, 8), (100, 5), (500, 1), (501, 1)])
def test_room_of_a_batch(longest: int, size: int) -> None:
    assert room(longest, 8, 500) == size
    assert room(longest, 8, None) == 8


class Lengths:
    """A dataset that counts how often it is asked."""

    name, total_count, performance_count = "lengths", 1_000_000, 1_000_000

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()

    def load(self, indices: Any) -> None: ...

    def unload(self, indices: Any) -> None: ...

    def gather(self, indices: Any) -> Any: ...

    def cost(self, index: int) -> int:
        self.asked[index] += 1
        return index % 384


def test_each_cost_is_asked_once() -> None:
    dataset = Lengths()
    costs = Costs(dataset)
    assert costs.of([3, 400, 3]).tolist() == [3, 16, 3]
    assert costs.of([400, 7]).tolist() == [16, 7]
    assert dataset.asked == {3: 1, 400: 1, 7: 1}


def test_a_million_samples_are_ordered_in_a_second() -> None:
    """Processor time, which neighbours on this machine do not stretch; measured: 0.3 s."""
    costs = Costs(Lengths())
    indices = np.random.default_rng(0).integers(0, 10_833, 1_000_000)
    began = time.process_time()
    known = costs.of(indices)
    cut(known[longest_first(known)], 8, 3072)
    assert time.process_time() - began < 1
