"""The sizes of a BERT, as `bert_config.json` holds them, and the weights that follow from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt

from loadgen.contracts import InputError
from loadgen.harness.runtimes.checkpoints import check_shapes, read_object, size

FILE = "bert_config.json"
Tensors: TypeAlias = "Mapping[str, npt.NDArray[Any]]"
"""By their names in the official `model.pytorch` (see `weight_shapes`)."""


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

    No such file: BERT-large, as the official weights are. Raises InputError naming the file, the key and what to do.
    """
    if not path.is_file():
        return BertConfig()
    document = read_object(path)
    sizes = [field.name for field in fields(BertConfig) if field.type == "int"]
    epsilon = document.get("layer_norm_eps", BertConfig.layer_norm_eps)  # files often leave it out
    config = BertConfig(**{key: size(document, key, path) for key in sizes}, layer_norm_eps=epsilon)
    if config.hidden_size % config.num_attention_heads:
        raise InputError(
            f"{path}: hidden_size {config.hidden_size} is not a multiple of "
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


def check_weights(shapes: Mapping[str, tuple[int, ...]], config: BertConfig, source: str) -> None:
    """Raise InputError naming the first tensor that is missing, surplus or of another shape."""
    check_shapes(shapes, weight_shapes(config), source, FILE)
