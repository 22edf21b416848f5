"""Captions as long as COCO's of words that mean nothing, and a vocabulary of CLIP's size that has the words."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np

from bench_sdxl.tokenizer import BEGIN, END, byte_letters

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "ch", "st")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("", "n", "r", "s", "l")
_LENGTHS = (2, 4)
"""Words of a caption, least and most but one: some 12 tokens, as COCO's captions have."""


def all_words() -> list[str]:
    """160,000 words of two syllables."""
    syllables = ["".join(parts) for parts in product(_ONSETS, _VOWELS, _CODAS)]
    return [first + second for first, second in product(syllables, syllables)]


def captions(count: int, seed: int = 1) -> list[str]:
    """None twice."""
    rng = np.random.default_rng(seed)
    known = np.array(all_words())
    return [" ".join(rng.choice(known, rng.integers(*_LENGTHS))) + "." for _ in range(count)]


def vocabulary(size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """(pieces, merges): of each byte a piece and one that ends a word, a piece of each merge, both ends of a text.

    Words are joined from their syllables, syllables from the left, as many as the size has room for.
    """
    letters = sorted(byte_letters(), key=lambda letter: (ord(letter) > 255, letter))  # "!" is number 0, as in CLIP's
    pieces = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters)])
    merges: dict[tuple[str, str], None] = {}
    for word in all_words():
        parts = [*word[:-1], f"{word[-1]}</w>"]
        made = parts[0]
        for _, following in pairwise(parts):
            if made + following not in pieces:
                merges[made, following] = None
                pieces[made + following] = None
            made += following
            if len(pieces) == size - 2:
                return [*pieces, BEGIN, END], list(merges)
    raise ValueError(f"no more than {len(pieces) + 2} pieces can be made, {size} are wanted")
