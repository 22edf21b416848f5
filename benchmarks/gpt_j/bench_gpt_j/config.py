"""The sizes of a GPT-J, as `config.json` of a Hugging Face folder holds them, and the weights that follow from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadgen.contracts import InputError
from loadgen.harness.runtimes.checkpoints import read_object, size

_SIZES = ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions", "rotary_dim")
_ONLY: Mapping[str, Any] = {
    "model_type": "gptj",
    "activation_function": "gelu_new",
    "tie_word_embeddings": False,
}
"""What other models of the family change, and this one does not compute."""


@dataclass(frozen=True)
class GPTJConfig:
    """Defaults: GPT-J 6B, the benchmark's model (6,050,882,784 parameters)."""

    vocab_size: int = 50400
    n_embd: int = 4096
    n_layer: int = 28
    n_head: int = 16
    n_positions: int = 2048
    rotary_dim: int = 64
    layer_norm_epsilon: float = 1e-5
    n_inner: int | None = None

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head

    @property
    def inner(self) -> int:
        """Channels inside the MLP."""
        return self.n_inner or 4 * self.n_embd


GPTJ_6B = GPTJConfig()


def write_config(path: Path, config: GPTJConfig, end: int) -> None:
    """`config.json` with the keys that decide the architecture. end: the id of the token that ends an answer."""
    fixed = {"architectures": ["GPTJForCausalLM"], **_ONLY, "bos_token_id": end, "eos_token_id": end}
    path.write_text(json.dumps(fixed | asdict(config), indent=2) + "\n")


def read_config(path: Path) -> GPTJConfig:
    """The sizes from `config.json`; keys that change no answer are passed over.

    Raises InputError naming file and key.
    """
    document = read_object(path)
    for key, known in _ONLY.items():
        if document.get(key, known) != known:
            raise InputError(f"{path}: {key!r} is {document[key]!r}: this backend computes {known!r} only")
    sizes = {key: size(document, key, path) for key in _SIZES}
    if sizes["n_embd"] % sizes["n_head"]:
        raise InputError(f"{path}: n_embd {sizes['n_embd']} is not divisible by n_head {sizes['n_head']}: correct them")
    head = sizes["n_embd"] // sizes["n_head"]
    if sizes["rotary_dim"] % 2 or sizes["rotary_dim"] > head:
        raise InputError(
            f"{path}: rotary_dim is {sizes['rotary_dim']}, expected an even number up to {head}, a head's channels"
        )
    inner = size(document, "n_inner", path) if document.get("n_inner") is not None else None
    epsilon = float(document.get("layer_norm_epsilon", GPTJConfig.layer_norm_epsilon))
    return GPTJConfig(**sizes, layer_norm_epsilon=epsilon, n_inner=inner)


def weight_shapes(config: GPTJConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor, by the names of Hugging Face's files."""
    width, inner, vocabulary = config.n_embd, config.inner, config.vocab_size
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (vocabulary, width)}
    for number in range(config.n_layer):
        layer = f"transformer.h.{number}"
        shapes |= {f"{layer}.ln_1.weight": (width,), f"{layer}.ln_1.bias": (width,)}
        shapes |= {f"{layer}.attn.{name}_proj.weight": (width, width) for name in ("q", "k", "v", "out")}
        shapes |= {
            f"{layer}.mlp.fc_in.weight": (inner, width),
            f"{layer}.mlp.fc_in.bias": (inner,),
            f"{layer}.mlp.fc_out.weight": (width, inner),
            f"{layer}.mlp.fc_out.bias": (width,),
        }
    return shapes | {
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
        "lm_head.weight": (vocabulary, width),
        "lm_head.bias": (vocabulary,),
    }
