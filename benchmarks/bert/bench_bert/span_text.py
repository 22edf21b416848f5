"""From a span of WordPieces back to the words as they stand in the context."""

from __future__ import annotations

from collections.abc import Sequence

from bench_bert.tokenizer import basic_tokens


def final_text(pieces: Sequence[str], words: Sequence[str]) -> str:
    """The part of the original words that the pieces cover, with its case and accents.

    Pieces know neither, words carry too much ("Smith's" for the pieces "smith"). Both are compared
    without spaces; where that does not line up (accents may change a word's length), the answer is
    all of the words, as in the reference.
    """
    wanted = " ".join(" ".join(pieces).replace(" ##", "").replace("##", "").split())
    original = " ".join(words)
    plain = " ".join(basic_tokens(original))
    first = plain.find(wanted)
    if first < 0:
        return original
    plain_at = [i for i, char in enumerate(plain) if char != " "]
    original_at = [i for i, char in enumerate(original) if char != " "]
    if len(plain_at) != len(original_at):
        return original
    last = first + len(wanted) - 1
    to_original = dict(zip(plain_at, original_at, strict=True))
    if first not in to_original or last not in to_original:
        return original
    return original[to_original[first] : to_original[last] + 1]
