"""OpenOrca as Llama 2 reads it: one sample is one prompt, in token ids that the official file holds already.

Its prompts begin with two <s>, one written into the text by the reference and one added by its tokenizer, and end with
a bare space. That is how the official answers were made, so nothing is taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench_llama2_70b.config import read_config
from bench_llama2_70b.official import BOS, CONFIG, DATA, MAX_NEW, TOKENIZER
from bench_llama2_70b.orca import read_orca
from bench_llama2_70b.tokenizer import Tokenizer, read_tokenizer
from loadgen.contracts import I64, InputError


# Twin of: benchmarks/gpt_j/bench_gpt_j/dataset.py::Batch
class Batch(NamedTuple):
    """Requests, without padding."""

    prompts: Sequence[I64]
    most: I64
    """Tokens of each answer at most."""


_LOOKED_AT = 32
"""Answers by which the tokenizer is compared with the data."""


class Dataset:
    """The prompts of `data/`, the answers to score by, and the model's tokenizer (see `contracts.Dataset`)."""

    def __init__(self, folder: Path, *, file: str = DATA, max_new_tokens: int = MAX_NEW, as_long: bool = False) -> None:
        """max_new_tokens: of an answer, for which the model's context needs room. as_long: an answer has as many tokens
        as the one that the file holds, for models that never end.

        Raises InputError that names the file, the sample and the fault.
        """
        path = folder / "data" / file
        table = read_orca(path)
        self.max_new_tokens = max_new_tokens
        self.prompts = [_ids(value, path, index) for index, value in enumerate(table["tok_input"])]
        self.references: list[str] = [_text(value, path, index) for index, value in enumerate(table["output"])]
        self.tokenizer = read_tokenizer(folder / "model" / TOKENIZER)
        self._lengths = np.array([len(prompt) for prompt in self.prompts], np.int64)
        self._most = np.full(len(self.prompts), max_new_tokens)
        if as_long:
            self._most = np.minimum([len(ids) for ids in table["tok_output"]], max_new_tokens)
        _check_ids(self.prompts, self.tokenizer.size, path)
        _check_tokenizer(self.tokenizer, table, path, folder)
        if (folder / "model" / CONFIG).is_file():  # a model elsewhere has its own
            self._check_model(folder / "model" / CONFIG, path)

    @property
    def name(self) -> str:
        return "OpenOrca"

    @property
    def total_count(self) -> int:
        return len(self.prompts)

    @property
    def performance_count(self) -> int:
        """All: the official set takes 60 MB."""
        return len(self.prompts)

    def load(self, indices: Sequence[int]) -> None:
        """Nothing to do: reading the file made every prompt."""

    def unload(self, indices: Sequence[int]) -> None:
        """Nothing to do."""

    def gather(self, indices: I64) -> Batch:
        """The prompts in this order."""
        return Batch([self.prompts[index] for index in indices.tolist()], self._most[indices])

    def costs(self, indices: I64) -> I64:
        """Tokens of each prompt; what its answer will take nobody knows."""
        lengths: I64 = self._lengths[indices]
        return lengths

    def _check_model(self, config_file: Path, path: Path) -> None:
        config = read_config(config_file)
        if config.vocab_size < self.tokenizer.size:
            raise InputError(
                f"{config_file}: the model knows {config.vocab_size} tokens, its tokenizer {self.tokenizer.size}: "
                f"use {TOKENIZER} and {CONFIG} of one model"
            )
        longest = int(self._lengths.argmax())
        needed = int(self._lengths[longest]) + self.max_new_tokens
        if needed > config.max_position_embeddings:
            raise InputError(
                f"{path}: sample {longest} has {self._lengths[longest]} tokens, and its answer up to "
                f"{self.max_new_tokens}: the model's context is {config.max_position_embeddings} ({config_file}). "
                "Use the data and the model of one benchmark"
            )


def _ids(value: Any, path: Path, index: int) -> I64:
    found = np.asarray(value)
    if found.ndim != 1 or not len(found) or found.dtype.kind not in "iu":
        what = "an empty prompt" if found.ndim == 1 and not len(found) else f"a prompt of {type(value).__name__}"
        raise InputError(f"{path}: sample {index} has {what}, expected a list of token ids. Fetch the file again")
    return found.astype(np.int64)


def _text(value: Any, path: Path, index: int) -> str:
    if not isinstance(value, str):
        raise InputError(f"{path}: the answer of sample {index} is a {type(value).__name__}, expected a text")
    return value


def _check_ids(prompts: Sequence[I64], size: int, path: Path) -> None:
    for index, prompt in enumerate(prompts):
        if prompt.min() < 0 or prompt.max() >= size:
            wrong = int(prompt[(prompt < 0) | (prompt >= size)][0])
            raise InputError(
                f"{path}: sample {index} has the token {wrong}, but the tokenizer knows {size}: "
                f"use the {TOKENIZER} that the data was made with"
            )
        if prompt[0] != BOS:
            raise InputError(
                f"{path}: sample {index} begins with {prompt[0]} and not with <s>, {BOS}: use the official data"
            )


def _check_tokenizer(tokenizer: Tokenizer, table: dict[str, list[Any]], path: Path, folder: Path) -> None:
    """Does it give back the answers' texts from the ids that the file holds? At least half of them."""
    rows = list(zip(table.get("tok_output", []), table["output"], strict=False))[:_LOOKED_AT]
    try:
        same = sum(tokenizer.decode(list(map(int, ids))).split() == text.split() for ids, text in rows)
    except (IndexError, TypeError, ValueError):
        same = 0
    if 2 * same < len(rows):
        raise InputError(
            f"{folder / 'model' / TOKENIZER}: of {len(rows)} answers in {path} it gives {same} back: "
            "use the tokenizer that the data was made with"
        )
