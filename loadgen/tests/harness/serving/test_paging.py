"""Continuous batching over pages: every token is computed once and in order, whatever comes when."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.contracts import RequestError
from loadgen.harness.serving.paging import Planner, Room, Step

EOS = 7


class Model:
    """Stands for a model whose next token is a sum over all before it, read from the cache where it says they are."""

    def __init__(self, room: Room) -> None:
        self.cache = np.full(room.pages * room.page, -1)
        self.page = room.page

    def next(self, step: Step) -> list[int]:
        made, at = [], 0
        for row, count in enumerate(step.counts.tolist()):
            for token, position in zip(step.tokens[at : at + count], step.positions[at : at + count], strict=True):
                self.cache[self._place(step, row, position)] = token
            seen = [self.cache[self._place(step, row, p)] for p in range(step.positions[at + count - 1] + 1)]
            made.append(following(seen))
            at += count
        return [token for token, wanted in zip(made, step.ends, strict=True) if wanted]

    def _place(self, step: Step, row: int, position: int) -> int:
        page = int(step.pages[row, position // self.page])
        assert page > 0, "the first page is nobody's"
        return page * self.page + position % self.page


def following(tokens: list[int]) -> int:
    return int(sum((n + 1) * token for n, token in enumerate(tokens)) % 23)


def alone(prompt: list[int], most: int) -> list[int]:
    """The answer, without any batch."""
    answer: list[int] = []
    while len(answer) < most and (not answer or answer[-1] != EOS):
        answer.append(following(prompt + answer))
    return answer


def answers(planner: Planner, room: Room, requests: list[tuple[list[int], int]], at_once: int) -> list[list[int]]:
    model, made, waiting, done = Model(room), [list[int]() for _ in requests], list(enumerate(requests)), 0
    for _ in range(10_000):
        for number, (prompt, most) in waiting[: min(at_once, max(0, planner.room()))]:
            planner.add(number, np.array(prompt), most)
            waiting.pop(0)
        step = planner.plan()
        if step is None and not waiting:
            break
        if step is None:
            continue
        assert step.single == 0 or (step.counts[: step.single] == 1).all()
        tokens = planner.accept(step, np.array(model.next(step), np.int64))
        for row, number in enumerate(tokens.requests.tolist()):
            made[number] += tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        done += int(tokens.finished.sum())
    assert done == len(requests)
    return made


REQUESTS = st.lists(st.tuples(st.lists(st.integers(1, 20), min_size=1, max_size=20), st.integers(1, 12)), max_size=12)


@given(REQUESTS, st.integers(1, 5), st.integers(8, 20), st.integers(2, 30), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_a_batch_changes_no_answer(
    requests: list[tuple[list[int], int]], slots: int, pages: int, budget: int, at_once: int
) -> None:
    """Also with so few pages that requests have to give theirs back."""
    room = Room(slots, longest=32, pages=1 + pages, page=4, budget=budget)
    planner = Planner(room, EOS)
    assert answers(planner, room, requests, at_once) == [alone(*request) for request in requests]
    assert planner.room() == slots
    assert sorted(planner._free) == list(range(1, 1 + pages)), "every page has come back"


def steps(planner: Planner) -> Iterator[Step]:
    while (step := planner.plan()) is not None:
        yield step
        planner.accept(step, np.full(int(step.ends.sum()), 1))


def test_a_prompt_comes_in_chunks_beside_what_generates() -> None:
    planner = Planner(Room(slots=2, longest=32, pages=20, page=4, budget=5), EOS)
    planner.add(0, np.arange(3), most=4)
    planner.accept(planner.plan(), np.array([1]))  # type: ignore[arg-type]
    planner.add(1, np.arange(11), most=2)
    seen = [(step.single, step.counts.tolist(), step.ends.tolist()) for step in steps(planner)]
    assert seen == [
        (1, [1, 4], [True, False]),
        (1, [1, 4], [True, False]),
        (1, [1, 3], [True, True]),
        (1, [1], [True]),
    ], "of 5 tokens one is the first request's, and 4 are the prompt's"


def test_the_first_token_of_an_answer_is_marked() -> None:
    planner = Planner(Room(slots=1, longest=32, pages=20), EOS)
    planner.add(0, np.arange(3), most=3)
    assert [step.fresh.tolist() for step in steps(planner)] == [[True], [False], [False]]


def test_the_youngest_gives_its_pages_back_and_goes_on_later() -> None:
    room = Room(slots=2, longest=16, pages=6, page=4, budget=100)
    planner = Planner(room, EOS)
    for number in range(2):
        planner.add(number, np.arange(1, 5), most=12)
    rows = [step.slots.tolist() for step in steps(planner)]
    assert len(rows[0]) == 2
    assert [len(row) for row in rows].count(1) > 4, "alone, when pages ran out"
    assert planner.room() == 2


@pytest.mark.parametrize(("prompt", "most", "message"), [([], 3, "is empty"), ([1] * 30, 3, "are over 32")])
def test_a_prompt_that_cannot_be_computed_names_its_request(prompt: list[int], most: int, message: str) -> None:
    planner = Planner(Room(slots=1, longest=32, pages=20), EOS)
    with pytest.raises(RequestError, match=message) as raised:
        planner.add(5, np.array(prompt, np.int64), most)
    assert raised.value.request == 5


def test_a_cache_too_small_for_one_request_is_refused() -> None:
    with pytest.raises(ValueError, match="do not hold one request of 64"):
        Room(slots=1, longest=64, pages=4, page=16)
