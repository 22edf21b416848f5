"""The rules of a beam search, one by one, on continuations that are made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench_gpt_j.beams import Beams, Length, of

END = 9


def advance(search: Beams, *continuations: tuple[float, int, int]) -> Any:
    """Of slot 0; each is (score, parent, token), the best first."""
    scores, parents, tokens = zip(*continuations, strict=True)
    return search.advance(
        np.array([0]), np.array([scores], np.float32), np.array([parents], np.int64), np.array([tokens], np.int64)
    )


def two(most: int = 8, length: Length = "generated", prompt: int = 10) -> Beams:
    """A search with two beams."""
    search = Beams(1, 2, most, END, length)
    search.begin(0, prompt, most)
    return search


def test_beams_part_and_carry_their_tokens() -> None:
    search = two()
    advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, 5), (-4, 0, 6))
    moves = advance(search, (-2, 1, 5), (-3, 1, 6), (-4, 0, 7), (-5, 0, 8))
    assert moves.parents.tolist() == [[1, 1]], "both go on from the second"
    assert moves.tokens.tolist() == [[5, 6]]
    assert search.last(np.array([0])).tolist() == [[5, 6]]
    assert not moves.ended[0]


def test_an_end_counts_among_the_first_only() -> None:
    search = two()
    moves = advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, END), (-4, 1, END))
    assert moves.tokens.tolist() == [[3, 4]]
    for _ in range(2):
        moves = advance(search, (-5, 0, END), (-6, 0, 5), (-7, 1, 6), (-8, 1, 7))
    assert moves.ended[0], "two that counted"
    assert search.answer(0).tolist() == [3, 5, END] or search.answer(0).tolist() == [3, END]


def test_a_search_ends_when_as_many_have_ended_as_there_are_beams() -> None:
    search = two()
    advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, 5), (-4, 0, 6))
    assert advance(search, (-1.5, 0, END), (-1.6, 1, END), (-2, 0, 5), (-3, 0, 6)).ended[0]
    assert search.answer(0).tolist() == [3, END]


@pytest.mark.parametrize(("length", "best"), [("generated", [3, 5, END]), ("full", [3, END])])
def test_the_length_rule_decides_between_short_and_long(length: Length, best: list[int]) -> None:
    """By the answer alone: -1.5 / 2 = -0.75 and -1.8 / 3 = -0.6. With the prompt: -1.5 / 11 and -1.8 / 12."""
    search = two(length=length)
    advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, 5), (-4, 0, 6))
    advance(search, (-1.5, 0, END), (-1.6, 0, 5), (-2, 0, 6), (-3, 0, 7))
    assert advance(search, (-1.8, 0, END), (-2.6, 0, 5), (-3, 0, 6), (-4, 0, 7)).ended[0]
    assert search.answer(0).tolist() == best


def test_unfinished_beams_count_at_the_end() -> None:
    search = two(most=2)
    advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, 5), (-4, 0, 6))
    assert advance(search, (-1.2, 0, 5), (-2, 0, END), (-3, 0, 6), (-4, 0, 7)).ended[0]
    assert search.answer(0).tolist() == [3, 5]


def test_a_slot_begins_anew() -> None:
    search = two(most=1)
    assert advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, 5), (-4, 0, 6)).ended[0]
    search.begin(0, 10, 1)
    assert advance(search, (-7, 0, 6), (-8, 0, 4), (-9, 0, 5), (-10, 0, 3)).ended[0]
    assert search.answer(0).tolist() == [6], "a better one was another sample's"


def test_unknown_rules_are_refused() -> None:
    assert of("full") == "full"
    with pytest.raises(ValueError, match="beam_length 7: use one of generated, full"):
        of(7)
