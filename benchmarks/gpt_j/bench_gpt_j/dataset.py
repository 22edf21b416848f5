"""CNN/DailyMail as GPT-J reads it: one sample is one article in the reference's prompt, as token ids.

A prompt is cut off after 1,919 tokens, as the reference does. Of 399 official articles that takes away the end of the
prompt, `### Response:`; the official score was made so, so it stays.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench_gpt_j.config import read_config
from bench_gpt_j.official import CONFIG, DATA, LONGEST, MAX_NEW, PROMPT, TOKENIZER
from bench_gpt_j.tokenizer import read_tokenizer
from loadgen.contracts import I64, InputError


class Batch(NamedTuple):
    """Requests, without padding."""

    prompts: Sequence[I64]
    most: I64
    """Tokens of each answer at most."""


class Dataset:
    """The prompts of `data/`, the summaries to score by, and the model's tokenizer (see `contracts.Dataset`)."""

    def __init__(
        self, folder: Path, *, longest: int = LONGEST, max_new_tokens: int = MAX_NEW, as_long: bool = False
    ) -> None:
        """longest: tokens of a prompt. max_new_tokens: of an answer. as_long: an answer has as many tokens as the
        summary that the file holds, for models that never end.

        Raises InputError that names the file, the sample and the fault.
        """
        path = folder / "data" / DATA
        rows = read_articles(path)
        self.longest, self.max_new_tokens, self.as_long = longest, max_new_tokens, as_long
        self.tokenizer = read_tokenizer(folder / "model" / TOKENIZER)
        self.references = [row["output"] for row in rows]
        texts = (PROMPT.format(instruction=row["instruction"], input=row["input"]) for row in rows)
        self.prompts = [np.array(ids[:longest], np.int64) for ids in self.tokenizer.encode_all(texts)]
        self._lengths = np.array([len(prompt) for prompt in self.prompts], np.int64)
        self._most = np.full(len(rows), max_new_tokens)
        if as_long:
            made = [len(ids) for ids in self.tokenizer.encode_all(self.references)]
            self._most = np.clip(made, 1, max_new_tokens)
        if (folder / "model" / CONFIG).is_file():  # a model elsewhere has its own
            self._check_model(folder / "model" / CONFIG)

    @property
    def name(self) -> str:
        return "CNN/DailyMail"

    @property
    def total_count(self) -> int:
        return len(self.prompts)

    @property
    def performance_count(self) -> int:
        """All: the official set takes 100 MB."""
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

    def _check_model(self, config_file: Path) -> None:
        config = read_config(config_file)
        if config.vocab_size < self.tokenizer.size:
            raise InputError(
                f"{config_file}: the model knows {config.vocab_size} tokens, its tokenizer {self.tokenizer.size}: "
                f"use {TOKENIZER} and {CONFIG} of one model"
            )
        if self.longest + self.max_new_tokens > config.n_positions:
            raise InputError(
                f"{config_file}: prompts of up to {self.longest} tokens and answers of up to {self.max_new_tokens} "
                f"are over the model's context, {config.n_positions}: use the model of the benchmark"
            )


def read_articles(path: Path) -> list[dict[str, str]]:
    """The rows of `cnn_eval.json`: texts `instruction`, `input` and `output`, none of them empty.

    Raises InputError that names the file, the sample and the fault.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the reference's {path.name} there")
    try:
        rows: Any = json.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8: save the file in that encoding") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}). Fetch it again") from error
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: holds no list of articles. Fetch it again")
    for index, row in enumerate(rows):
        _check_row(row, path, index)
    return rows


def _check_row(row: Any, path: Path, index: int) -> None:
    for key in ("instruction", "input", "output"):
        text = row.get(key) if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise InputError(f"{path}: sample {index} has no text {key!r}. Fetch the file again")
        if not text.strip():
            raise InputError(f"{path}: sample {index} has an empty {key!r}: leave the sample out, or mend it")
