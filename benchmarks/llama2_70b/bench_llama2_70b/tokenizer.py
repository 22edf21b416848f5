"""Llama's tokenizer: SentencePiece's model file, as `tokenizer.model` of a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from bench_llama2_70b.official import BOS, EOS
from loadgen.contracts import InputError


class Tokenizer:
    """Text to ids and back."""

    def __init__(self, model: bytes, source: str = "tokenizer.model") -> None:
        """Raises InputError naming `source` if the bytes are no SentencePiece model, or not Llama's kind of one."""
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
            size = self._pieces.vocab_size() if model else 0
        except RuntimeError:
            size = 0
        if not size:
            raise InputError(f"{source}: not a SentencePiece model. Fetch it again")
        if (self._pieces.bos_id(), self._pieces.eos_id()) != (BOS, EOS):
            found = f"<s> is {self._pieces.bos_id()} and </s> is {self._pieces.eos_id()}"
            raise InputError(f"{source}: {found}, but Llama's are {BOS} and {EOS}: use the tokenizer of the model")
        self.size: int = size

    def encode(self, text: str) -> list[int]:
        """Without <s> and </s>, which no text stands for."""
        ids: list[int] = self._pieces.encode(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Special tokens are left out. Raises IndexError for an id that is not below `size`."""
        text: str = self._pieces.decode([number for number in ids if number > EOS])
        return text

    def bare_space(self) -> int:
        """The piece of one space and nothing else: 29871 in Llama 2, which the reference appends to each prompt."""
        number: int = self._pieces.piece_to_id("▁")
        return number


def read_tokenizer(path: Path) -> Tokenizer:
    """Raises InputError naming the file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the model's {path.name} there")
    return Tokenizer(path.read_bytes(), str(path))
