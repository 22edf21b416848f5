"""GPT-J's tokenizer: byte pairs, as `tokenizer.json` of a Hugging Face folder holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import tokenizers

from bench_gpt_j.official import END
from loadgen.contracts import InputError


class Tokenizer:
    """Text to ids and back."""

    def __init__(self, document: bytes, source: str = "tokenizer.json") -> None:
        """Raises InputError naming `source` if the bytes are no tokenizer, or one without `<|endoftext|>`."""
        try:
            self._pairs = tokenizers.Tokenizer.from_str(document.decode())
        except Exception as error:  # the library raises bare ones
            raise InputError(f"{source}: not a tokenizer ({error}). Fetch it again") from error
        end = self._pairs.token_to_id(END)
        if end is None:
            raise InputError(f"{source}: has no token {END}, which ends an answer: use the tokenizer of the model")
        self._pairs.no_truncation()
        self._pairs.no_padding()
        self.end: int = end
        self.size: int = self._pairs.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Without special tokens before or after."""
        ids: list[int] = self._pairs.encode(text, add_special_tokens=False).ids
        return ids

    def encode_all(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """As `encode`, on several threads: CNN/DailyMail in seconds."""
        rest = iter(texts)
        while some := list(islice(rest, 256)):
            yield from (found.ids for found in self._pairs.encode_batch_fast(some, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Special tokens are left out. Raises IndexError for an id that is not among the tokenizer's."""
        if any(not 0 <= number < self.size for number in ids):
            raise IndexError(f"ids go up to {self.size - 1}")
        text: str = self._pairs.decode(ids, skip_special_tokens=True)
        return text


def read_tokenizer(path: Path) -> Tokenizer:
    """Raises InputError naming the file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the model's {path.name} there; nothing is fetched by itself")
    return Tokenizer(path.read_bytes(), str(path))
