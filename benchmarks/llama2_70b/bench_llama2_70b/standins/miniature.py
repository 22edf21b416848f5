"""Writes the miniature's files: `data/` as OpenOrca's, `model/` as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench_llama2_70b.config import LlamaConfig, write_config
from bench_llama2_70b.official import CONFIG as CONFIG_FILE
from bench_llama2_70b.official import INDEX, TOKENIZER
from bench_llama2_70b.standins import COUNT, DATA, formats, generate
from loadgen.harness.standins.making import made_once, version_of, writing

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.npz"
"""The trained tensors by their official names in float16, and the bytes of the tokenizer."""
SOURCES = (
    WEIGHTS,
    HERE.parent / "config.py",
    *(HERE / f"{name}.py" for name in ("__init__", "generate", "formats", "prompts", "miniature")),
)
"""All that the files follow from."""

CONFIG = LlamaConfig(
    vocab_size=576,
    hidden_size=96,
    intermediate_size=256,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=384,
)
_SHARDS = 2


# Twin of: benchmarks/gpt_j/bench_gpt_j/standins/miniature.py::prepare
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
    tokenizer = read_tokenizer_bytes()
    write_config(model / CONFIG_FILE, CONFIG)
    (model / TOKENIZER).write_bytes(tokenizer)
    formats.write_data(data / DATA, generate.evaluation(COUNT), tokenizer)


def write_weights(path: Path) -> None:
    """The committed weights as the official index of that name, and the files that it names."""
    with writing(path.parent):
        formats.write_weights(path, read_weights(), _SHARDS)


def read_weights() -> dict[str, formats.Array]:
    """The committed tensors by their official names, in float16 as the official ones."""
    with np.load(WEIGHTS) as stored:
        return {name: stored[name] for name in stored.files if name != TOKENIZER}


def read_tokenizer_bytes() -> bytes:
    """Those of `tokenizer.model`."""
    with np.load(WEIGHTS) as stored:
        return bytes(stored[TOKENIZER])
