"""From an example to the ids of its prompt, as the reference's `processorca.py` makes them."""

from __future__ import annotations

from bench_llama2_70b.official import BOS
from bench_llama2_70b.standins.generate import Example
from bench_llama2_70b.tokenizer import Tokenizer


def prompt_ids(example: Example, tokenizer: Tokenizer) -> list[int]:
    """Two <s>, one of the prompt's text and one of the tokenizer, then the text, then a bare space."""
    text = example.prompt.removeprefix("<s>")
    return [BOS, BOS, *tokenizer.encode(text), tokenizer.bare_space()]
