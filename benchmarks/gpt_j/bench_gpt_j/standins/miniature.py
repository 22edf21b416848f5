"""Writes the miniature's files: `data/cnn_eval.json`, and `model/` as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench_gpt_j.config import GPTJConfig, write_config
from bench_gpt_j.official import CONFIG as CONFIG_FILE
from bench_gpt_j.official import DATA, INDEX, TOKENIZER
from bench_gpt_j.standins import COUNT, formats, generate
from bench_gpt_j.tokenizer import Tokenizer
from loadgen.harness.runtimes import safetensors
from loadgen.harness.standins.making import made_once, version_of, writing

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.npz"
"""The trained tensors by their official names in float16, and the bytes of the tokenizer."""
SOURCES = (
    WEIGHTS,
    *(HERE.parent / f"{name}.py" for name in ("config", "official")),
    *(HERE / f"{name}.py" for name in ("__init__", "generate", "formats", "miniature")),
)
"""All that the files follow from."""

CONFIG = GPTJConfig(vocab_size=640, n_embd=96, n_layer=2, n_head=4, n_positions=512, rotary_dim=12)
_SHARDS = 2


def prepare(folder: Path) -> None:
    """Fill `folder/data`, and `folder/model` but for the weights; at once if an earlier call of this version did.

    The weights are made when a backend wants them, by `write_weights`.
    """
    made_once(folder, version_of(*SOURCES), _make)


def _make(folder: Path) -> None:
    model, data = folder / "model", folder / "data"
    for place in (model, data):
        place.mkdir(exist_ok=True)
    (model / INDEX).unlink(missing_ok=True)  # of another version
    document = read_tokenizer_bytes()
    write_config(model / CONFIG_FILE, CONFIG, Tokenizer(document).end)
    (model / TOKENIZER).write_bytes(document)
    formats.write_data(data / DATA, generate.evaluation(COUNT))


def write_weights(path: Path) -> None:
    """The committed weights as the official index of that name, and the files that it names."""
    with writing(path.parent):
        safetensors.write(path, read_weights(), _SHARDS)


def read_weights() -> dict[str, Any]:
    """The committed tensors by their official names, in float16."""
    with np.load(WEIGHTS) as stored:
        return {name: stored[name] for name in stored.files if name != TOKENIZER}


def read_tokenizer_bytes() -> bytes:
    """Those of `tokenizer.json`."""
    with np.load(WEIGHTS) as stored:
        return bytes(stored[TOKENIZER])
