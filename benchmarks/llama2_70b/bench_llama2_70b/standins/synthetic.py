"""The `synthetic` profile: Llama 2 at full size with random weights, and prompts as many and as long as OpenOrca's.

Nothing of the weights is written: a backend draws them from a seed where they are used. An answer is as long as the one
that its prompt has in the file, because random weights end at random.
"""

from __future__ import annotations

import gzip
import struct
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_llama2_70b.config import LLAMA_13B, LLAMA_70B, LlamaConfig, write_config
from bench_llama2_70b.official import BOS, CONFIG, DATA, TOKENIZER
from bench_llama2_70b.standins import formats, miniature
from bench_llama2_70b.tokenizer import Tokenizer
from loadgen.contracts import I64
from loadgen.harness.files import whole_file
from loadgen.harness.standins.making import tell, writing

COUNT = 24_576
_FIRST = 300
"""Token ids below are special ones and bytes."""
_SHORTEST, _LONGEST = 4, 1023
"""Tokens of a prompt and of an answer, by the reference's filter: below 1,024."""


def prepare(folder: Path, config: LlamaConfig = LLAMA_70B, count: int = COUNT) -> None:
    """Fill `folder/data`, and `folder/model` with sizes and tokenizer. What is there stays."""
    model, data = folder / "model", folder / "data"
    with writing(model), writing(data):
        if not (model / CONFIG).is_file():
            write_config(model / CONFIG, config)
        if not (model / TOKENIZER).is_file():
            (model / TOKENIZER).write_bytes(widened(miniature.read_tokenizer_bytes(), config.vocab_size))
        if not (data / DATA).is_file():
            tell(f"making {data / DATA}: {count:,} prompts")
            _write_data(data / DATA, (model / TOKENIZER).read_bytes(), count)


prepare_13b = partial(prepare, config=LLAMA_13B)


def lengths(count: int, seed: int) -> tuple[I64, I64]:
    """(of prompts, of answers) in tokens: 280 and 294 on average, and as skewed as texts are.

    The mean of answers is the official 294.45; OpenOrca's prompts have some 280. That both are log-normal is assumed.
    """
    rng = np.random.default_rng(seed)
    columns = (rng.lognormal(np.log(median), 0.75, count) for median in (218, 231))
    prompts, answers = (np.clip(column, _SHORTEST, _LONGEST).astype(np.int64) for column in columns)
    return prompts, answers


def widened(tokenizer_model: bytes, size: int) -> bytes:
    """A SentencePiece model with more pieces: those of a Protobuf list may follow whatever is there."""
    missing = range(Tokenizer(tokenizer_model).size, size)
    return tokenizer_model + b"".join(_piece(f"\u2581token{number}", -float(number)) for number in missing)


def _piece(text: str, score: float) -> bytes:
    """Field 1 of a ModelProto: a message of the piece's text (1) and score (2)."""
    encoded = text.encode()
    message = b"\x0a" + bytes([len(encoded)]) + encoded + b"\x15" + struct.pack("<f", score)
    return b"\x0a" + bytes([len(message)]) + message


def _write_data(path: Path, tokenizer_model: bytes, count: int, seed: int = 1) -> None:
    tokenizer, rng = Tokenizer(tokenizer_model), np.random.default_rng(seed)
    prompt_lengths, answer_lengths = lengths(count, seed)

    def drawn(length: int) -> npt.NDArray[np.int64]:
        return rng.integers(_FIRST, tokenizer.size, length)

    prompts = [[BOS, BOS, *drawn(n - 3).tolist(), tokenizer.bare_space()] for n in prompt_lengths.tolist()]
    answers = [drawn(n).tolist() for n in answer_lengths.tolist()]
    table = {
        "output": [tokenizer.decode(ids) for ids in answers],
        "origin": [("cot", "flan", "niv", "t0")[4 * index // count] for index in range(count)],
        "tok_input": prompts,
        "tok_output": answers,
        "tok_input_length": prompt_lengths.tolist(),
        "tok_output_length": answer_lengths.tolist(),
    }
    with whole_file(path) as part:
        part.write_bytes(gzip.compress(formats.pickled(table), 1, mtime=0))
