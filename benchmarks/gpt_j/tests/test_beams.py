"""The rules of a beam search, one by one, on continuations that are made up."""

from __future__ import annotations

import pytest
import torch

from bench_gpt_j.pytorch.beams import Beams, Length, of

END = 9


def advance(search: Beams, *continuations: tuple[float, int, int]) -> list[list[int]]:
    """Of slot 0; each is (score, parent, token), the best first. Returns the parents."""
    scores, parents, tokens = zip(*continuations, strict=True)
    return search.advance(
        torch.tensor([0]), torch.tensor([scores]), torch.tensor([parents]), torch.tensor([tokens])
    ).tolist()


def two(most: int = 8, length: Length = "generated", prompt: int = 10) -> Beams:
    """A search with two beams."""
    search = Beams(1, 2, most, END, length)
    begin(search, prompt, most)
    return search


def begin(search: Beams, prompt: int, most: int) -> None:
    search.begin(torch.tensor([0]), torch.tensor([prompt]), torch.tensor([most]))


def answer(search: Beams) -> list[int]:
    return search.answers[0, : search.lengths[0]].tolist()


def test_beams_part_and_carry_their_tokens() -> None:
    search = two()
    advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, 5), (-4, 0, 6))
    assert advance(search, (-2, 1, 5), (-3, 1, 6), (-4, 0, 7), (-5, 0, 8)) == [[1, 1]], "both go on from the second"
    assert search.last(torch.tensor([0])).tolist() == [[5, 6]]
    assert search.running[0]


def test_an_end_counts_among_the_first_only() -> None:
    search = two()
    advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, END), (-4, 1, END))
    assert search.last(torch.tensor([0])).tolist() == [[3, 4]]
    for _ in range(2):
        assert search.running[0]
        advance(search, (-5, 0, END), (-6, 0, 5), (-7, 1, 6), (-8, 1, 7))
    assert not search.running[0], "two that counted"
    assert answer(search) == [3, 5, END]


def test_a_search_ends_when_as_many_have_ended_as_there_are_beams() -> None:
    search = two()
    advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, 5), (-4, 0, 6))
    advance(search, (-1.5, 0, END), (-1.6, 1, END), (-2, 0, 5), (-3, 0, 6))
    assert not search.running[0]
    assert answer(search) == [3, END]
    before = search.tokens.clone()
    advance(search, (-0.5, 0, END), (-0.6, 1, END), (-1, 0, 5), (-2, 0, 6))
    assert answer(search) == [3, END], "nothing changes after the end"
    assert torch.equal(search.tokens, before)


@pytest.mark.parametrize(("length", "best"), [("generated", [3, 5, END]), ("full", [3, END])])
def test_the_length_rule_decides_between_short_and_long(length: Length, best: list[int]) -> None:
    """By the answer alone: -1.5 / 2 = -0.75 and -1.8 / 3 = -0.6. With the prompt: -1.5 / 11 and -1.8 / 12."""
    search = two(length=length)
    advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, 5), (-4, 0, 6))
    advance(search, (-1.5, 0, END), (-1.6, 0, 5), (-2, 0, 6), (-3, 0, 7))
    advance(search, (-1.8, 0, END), (-2.6, 0, 5), (-3, 0, 6), (-4, 0, 7))
    assert not search.running[0]
    assert answer(search) == best


def test_unfinished_beams_count_at_the_end() -> None:
    search = two(most=2)
    advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, 5), (-4, 0, 6))
    advance(search, (-1.2, 0, 5), (-2, 0, END), (-3, 0, 6), (-4, 0, 7))
    assert not search.running[0]
    assert answer(search) == [3, 5]


def test_a_slot_begins_anew() -> None:
    search = two(most=1)
    advance(search, (-1, 0, 3), (-2, 0, 4), (-3, 0, 5), (-4, 0, 6))
    assert not search.running[0]
    begin(search, 10, 1)
    advance(search, (-7, 0, 6), (-8, 0, 4), (-9, 0, 5), (-10, 0, 3))
    assert not search.running[0]
    assert answer(search) == [6], "a better one was another sample's"


def test_unknown_rules_are_refused() -> None:
    assert of("full") == "full"
    with pytest.raises(ValueError, match="beam_length 7: use one of generated, full"):
        of(7)
