"""The sizes of a BERT, as `bert_config.json` holds them, and the weights that follow from them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from loadgen.contracts import InputError


@dataclass(frozen=True)
class BertConfig:
    """Defaults: BERT-large uncased, the benchmark's model (334.1 M parameters)."""

    vocab_size: int = 30522
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12


def write_config(path: Path, config: BertConfig) -> None:
    """`bert_config.json` with the official keys that decide the architecture."""
    path.write_text(json.dumps(asdict(config) | {"hidden_act": "gelu"}, indent=2) + "\n")


def read_config(path: Path) -> BertConfig:
    """The sizes from `bert_config.json`; keys that only training reads are passed over.

    Raises InputError naming the file, the key and what to do.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the model's bert_config.json there")
    try:
        document: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}). Put the model's bert_config.json there") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds no JSON object. Put the model's bert_config.json there")
    known = [field.name for field in fields(BertConfig)]
    sizes = {key: document[key] for key in known if key in document}
    for key in known[:-1]:  # every size; files often leave out the epsilon, which is always 1e-12
        value = sizes.get(key)
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{path}: {key!r} is {value!r}, expected a positive whole number")
    config = BertConfig(**sizes)
    if config.hidden_size % config.num_attention_heads:
        raise InputError(
            f"{path}: hidden_size {config.hidden_size} is no multiple of "
            f"num_attention_heads {config.num_attention_heads}: correct one of them"
        )
    return config


def weight_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that question answering reads from the official `model.pytorch`."""
    width, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (config.vocab_size, width),
        "bert.embeddings.position_embeddings.weight": (config.max_position_embeddings, width),
        "bert.embeddings.token_type_embeddings.weight": (config.type_vocab_size, width),
        **_norm("bert.embeddings.LayerNorm", width),
    }
    for number in range(config.num_hidden_layers):
        layer = f"bert.encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _linear(f"{layer}.attention.{part}", width, width)
        shapes |= _norm(f"{layer}.attention.output.LayerNorm", width)
        shapes |= _linear(f"{layer}.intermediate.dense", inner, width)
        shapes |= _linear(f"{layer}.output.dense", width, inner)
        shapes |= _norm(f"{layer}.output.LayerNorm", width)
    return shapes | _linear("qa_outputs", 2, width)


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
