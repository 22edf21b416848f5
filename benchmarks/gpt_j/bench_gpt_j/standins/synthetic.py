"""The `synthetic` profile: GPT-J at full size with random weights, and articles as many and as long as CNN/DailyMail's.

Nothing of the weights is written: a backend draws them from a seed where they are used. An answer is as long as the
summary that its article has in the file, because random weights end at random.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench_gpt_j.config import GPTJ_6B, GPTJConfig, write_config
from bench_gpt_j.official import CONFIG, DATA, END, INSTRUCTION, MAX_NEW, PROMPT, TOKENIZER
from bench_gpt_j.standins import formats, generate, miniature
from bench_gpt_j.tokenizer import Tokenizer
from loadgen.contracts import I64
from loadgen.harness.standins.making import tell, writing

COUNT = 13_368
_WORDS = [*generate.PEOPLE, *generate.VERBS, *generate.THINGS]
"""Of one token each, with the blank before them."""
END_OF_6B = 50256


def prepare(folder: Path, config: GPTJConfig = GPTJ_6B, count: int = COUNT) -> None:
    """Fill `folder/data`, and `folder/model` with sizes and tokenizer. What is there stays."""
    model, data = folder / "model", folder / "data"
    with writing(model), writing(data):
        if not (model / TOKENIZER).is_file():
            (model / TOKENIZER).write_bytes(widened(miniature.read_tokenizer_bytes(), config.vocab_size))
        if not (model / CONFIG).is_file():
            write_config(model / CONFIG, config, Tokenizer((model / TOKENIZER).read_bytes()).end)
        if not (data / DATA).is_file():
            tell(f"making {data / DATA}: {count:,} articles")
            empty = PROMPT.format(instruction=INSTRUCTION, input="")
            frame = len(Tokenizer((model / TOKENIZER).read_bytes()).encode(empty))
            formats.write_data(data / DATA, articles(count, frame))


def lengths(count: int, seed: int) -> tuple[I64, I64]:
    """(of prompts, of answers) in tokens: 950 and 69 on average, and as skewed as texts are.

    The means are those of the official data; that both are log-normal is assumed. Prompts over 1,919 tokens are cut off
    by the dataset.
    """
    rng = np.random.default_rng(seed)
    prompts, answers = rng.lognormal(np.log(870), 0.42, count), rng.lognormal(np.log(65), 0.35, count)
    return np.clip(prompts, 150, 3000).astype(np.int64), np.clip(answers, 10, MAX_NEW).astype(np.int64)


def articles(count: int, frame: int, seed: int = 1) -> list[generate.Example]:
    """Words without sense. frame: tokens of a prompt without an article."""
    rng = np.random.default_rng(seed)
    prompts, answers = lengths(count, seed)

    def text(length: int) -> str:
        return "".join(f" {_WORDS[number]}" for number in rng.integers(0, len(_WORDS), length).tolist())

    return [generate.Example(text(max(1, n - frame)), text(m)) for n, m in zip(prompts, answers, strict=True)]


def widened(document: bytes, size: int) -> bytes:
    """A tokenizer of `size` tokens, whose end is where GPT-J's is; tokens that are added appear in no text."""
    tokenizer = json.loads(document)
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    end = min(END_OF_6B, size - 1)
    known = {number: token for token, number in vocabulary.items() if token != END}
    known[end] = END
    tokenizer["model"]["vocab"] = {known.get(number, f"token{number}"): number for number in range(size)}
    for token in tokenizer["added_tokens"]:
        token["id"] = end
    return json.dumps(tokenizer, ensure_ascii=False).encode()
