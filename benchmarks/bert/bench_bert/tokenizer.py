"""The uncased BERT tokenizer: text -> words without case and accents -> WordPieces.

Follows Devlin et al. (2018) as the benchmark's reference uses it. Differs from some faster
implementations only in what Python's `str.lower` knows of context (a final Greek sigma).
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from pathlib import Path

from loadgen.contracts import InputError

UNKNOWN = "[UNK]"
SPECIAL = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]")
"""What a vocabulary must have."""
_RESERVED = re.compile(r"(\[PAD\]|\[UNK\]|\[CLS\]|\[SEP\]|\[MASK\])")
"""Written in a text like this, one is the special piece itself, as in the reference; `[sep]` is not."""

MAX_WORD_LENGTH = 100
"""A longer word becomes [UNK]: the limit of the reference's tokenizer, in characters."""

# The blocks that the reference spaces out as Chinese characters: CJK ideographs, their extensions
# A to E and the compatibility blocks. Kana and Hangul are written with spaces or kept as words.
_CJK = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


def is_punctuation(char: str) -> bool:
    """Whether a character stands alone as a token: Unicode punctuation, and every ASCII symbol."""
    ascii_symbol = 33 <= ord(char) <= 126 and not char.isalnum()
    return ascii_symbol or unicodedata.category(char).startswith("P")


@lru_cache(maxsize=4096)
def _rendered(char: str) -> str:
    """What cleaning makes of one character: nothing, a space, itself, or itself set apart."""
    code = ord(char)
    if char in " \t\n\r" or unicodedata.category(char) == "Zs":
        return " "
    if code in (0, 0xFFFD) or unicodedata.category(char).startswith("C"):
        return ""
    if any(first <= code <= last for first, last in _CJK):
        return f" {char} "
    return char


def basic_tokens(text: str) -> list[str]:
    """Words and single punctuation marks, lower case, accents removed."""
    tokens: list[str] = []
    for word in "".join(map(_rendered, text)).split():
        plain = unicodedata.normalize("NFD", word.lower())
        start_new = True
        for char in plain:
            if unicodedata.category(char) == "Mn":  # a combining accent
                continue
            if start_new or is_punctuation(char):
                tokens.append(char)
            else:
                tokens[-1] += char
            start_new = is_punctuation(char)
    return tokens


class Tokenizer:
    """Splits words into the pieces of one vocabulary, longest first."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self.ids = vocabulary
        self._cache: dict[str, tuple[str, ...]] = {}

    def pieces(self, text: str) -> list[str]:
        """The WordPieces of any text; `##` marks one that continues a word."""
        pieces: list[str] = []
        for number, part in enumerate(_RESERVED.split(text)):
            if number % 2:  # between two others: what the pattern found
                pieces.append(part if part in self.ids else UNKNOWN)
            else:
                pieces += (piece for word in basic_tokens(part) for piece in self._split(word))
        return pieces

    def _split(self, word: str) -> tuple[str, ...]:
        if word not in self._cache:
            self._cache[word] = self._longest_first(word)
        return self._cache[word]

    def _longest_first(self, word: str) -> tuple[str, ...]:
        if len(word) > MAX_WORD_LENGTH:
            return (UNKNOWN,)
        pieces: list[str] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self.ids), None)
            if end is None:
                return (UNKNOWN,)  # one unknown part makes the whole word unknown
            pieces.append(prefix + word[start:end])
            start = end
        return tuple(pieces)


def read_vocabulary(path: Path) -> dict[str, int]:
    """Piece -> id from `vocab.txt`: one piece a line, its id the line number from 0.

    Raises InputError naming the file and what to put there.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the vocabulary of bert_tf_v1_1_large_fp32_384_v2 there")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}). Fetch vocab.txt again") from error
    ids = {line.strip(): number for number, line in enumerate(lines) if line.strip()}
    missing = [piece for piece in SPECIAL if piece not in ids]
    if missing:
        raise InputError(
            f"{path}: no line {missing[0]!r}, so this is not a BERT vocabulary. "
            "Use the vocab.txt that belongs to the model (one piece a line)"
        )
    return ids
