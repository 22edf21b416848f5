"""CLIP's tokenizer: lower-case text -> byte-pair pieces, from `vocab.json` and `merges.txt` (Sennrich et al. 2016).

The reference repairs text of a wrong encoding first (ftfy); of its repairs only straight quotes are made here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from loadgen.contracts import InputError
from loadgen.harness.runtimes.checkpoints import read_object

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
NEGATIVE = "normal quality, low quality, worst quality, low res, blurry, nsfw, nude"
"""The benchmark's negative prompt, of every sample."""

_SHORT_FORMS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_QUOTES = str.maketrans("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f", "''''\"\"\"\"")


def cleaned(text: str) -> str:
    """Lower case, straight quotes, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).translate(_QUOTES).split()).lower()


def words(text: str) -> Iterator[str]:
    """Short forms, runs of letters, single digits, runs of anything else: of text that is cleaned."""
    at = 0
    while at < len(text):
        kind = _kind(text[at])
        short = next((form for form in _SHORT_FORMS if text.startswith(form, at)), "")
        end = at + (len(short) or 1)
        if not short and kind in "Lo":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != " ":
            yield text[at:end]
        at = end


@lru_cache(maxsize=4096)
def _kind(char: str) -> str:
    if char.isspace():
        return " "
    kind = unicodedata.category(char)[0]
    return kind if kind in "LN" else "o"


@lru_cache(maxsize=1)
def byte_letters() -> tuple[str, ...]:
    """Of each byte, the character that stands for it in the vocabulary: itself if it can be seen, else another."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return tuple(chr(byte if byte in seen else next(hidden)) for byte in range(256))


class Tokenizer:
    """Of one folder: `tokenizer` or `tokenizer_2`, which differ in what they pad with."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError naming the file and the fault."""
        self.ids = _vocabulary(folder / "vocab.json")
        self._ranks = _merges(folder / "merges.txt")
        pad = read_object(folder / "tokenizer_config.json").get("pad_token")
        self._padding = str(pad["content"] if isinstance(pad, dict) else pad)
        self.pad = self._special(self._padding, folder)
        self.begin, self.end = self._special(BEGIN, folder), self._special(END, folder)
        self._known: dict[str, tuple[int, ...]] = {}

    def _special(self, token: str, folder: Path) -> int:
        if token not in self.ids:
            raise InputError(f"{folder / 'vocab.json'}: no token {token!r}: fetch the folder {folder.name} again")
        return self.ids[token]

    def row(self, text: str, length: int) -> list[int]:
        """Exactly `length` ids: begin, the text's pieces as far as they fit, end, padding."""
        pieces = self.pieces(text)[: length - 2]
        return [self.begin, *pieces, self.end] + [self.pad] * (length - 2 - len(pieces))

    def pieces(self, text: str) -> list[int]:
        """Ids of any text; as in the reference, what the vocabulary lacks becomes the end token, and what is the
        padding, an exclamation mark for the second encoder, stays that."""
        found: list[int] = []
        for number, part in enumerate(text.split(self._padding)):
            found += [self.pad] if number else []
            found += [piece for word in words(cleaned(part)) for piece in self._word(word)]
        return found

    def _word(self, word: str) -> tuple[int, ...]:
        if word not in self._known:
            letters = byte_letters()
            *parts, last = (letters[byte] for byte in word.encode("utf-8"))
            pieces = self._merged((*parts, f"{last}</w>"))
            self._known[word] = tuple(self.ids.get(piece, self.end) for piece in pieces)
        return self._known[word]

    def _merged(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Joins the neighbours of the best rank, wherever they stand, until no pair has one."""
        while len(parts) > 1:
            rank, pair = min((self._ranks.get(pair, 1 << 30), pair) for pair in pairwise(parts))
            if rank == 1 << 30:
                break
            parts = joined(parts, pair)
        return parts


def joined(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The same with each such pair of neighbours as one, from the left."""
    found: list[str] = []
    is_whole = True  # what was just joined takes no part in the next pair
    for part in parts:
        if not is_whole and (found[-1], part) == pair:
            found[-1] += part
            is_whole = True
        else:
            found.append(part)
            is_whole = False
    return tuple(found)


def _vocabulary(path: Path) -> dict[str, int]:
    document = read_object(path)
    if not all(type(value) is int and value >= 0 for value in document.values()):
        raise InputError(f"{path}: not every piece has a number from 0 on: fetch the file again")
    return document


def _merges(path: Path) -> dict[tuple[str, str], int]:
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the model's merges.txt there")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}): fetch the file again") from error
    pairs = [tuple(line.split(" ")) for line in lines[1:] if line.strip()]  # the first line says the version
    wrong = next((number for number, pair in enumerate(pairs, 2) if len(pair) != 2), 0)
    if wrong or not pairs:
        raise InputError(f"{path}:{wrong or 1}: not two pieces on every line but the first: fetch the file again")
    return {(first, second): rank for rank, (first, second) in enumerate(pairs)}
