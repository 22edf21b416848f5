"""The sizes of a Llama, as `config.json` of a Hugging Face folder holds them, and the weights that follow from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench_llama2_70b.official import BOS, EOS
from loadgen.contracts import InputError
from loadgen.harness.runtimes.checkpoints import read_object, size

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "rope_scaling": (None,),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "tie_word_embeddings": (None, False),
}
"""What other models of the family change, and this one does not compute."""


@dataclass(frozen=True)
class LlamaConfig:
    """Defaults: Llama 2 70B, the benchmark's model (68,976,648,192 parameters)."""

    vocab_size: int = 32000
    hidden_size: int = 8192
    intermediate_size: int = 28672
    num_hidden_layers: int = 80
    num_attention_heads: int = 64
    num_key_value_heads: int = 8
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads


LLAMA_70B = LlamaConfig()
LLAMA_13B = LlamaConfig(
    hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40, num_key_value_heads=40
)


def write_config(path: Path, config: LlamaConfig) -> None:
    """`config.json` with the keys that decide the architecture."""
    fixed = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    }
    path.write_text(json.dumps(fixed | asdict(config), indent=2) + "\n")


def read_config(path: Path) -> LlamaConfig:
    """The sizes from `config.json`; keys that change no answer are passed over. Raises InputError naming file and key.

    Old files of models whose every head has keys of its own leave `num_key_value_heads` out; new files hold
    `rope_theta` below `rope_parameters`.
    """
    document = read_object(path)
    for key, known in _ONLY.items():
        if document.get(key) not in known and not (key == "hidden_act" and key not in document):
            raise InputError(f"{path}: {key!r} is {document.get(key)!r}: this backend computes {known[0]!r} only")
    sizes = {key: size(document, key, path) for key in _SIZES}
    heads = sizes["num_attention_heads"]
    groups = size({"num_key_value_heads": heads, **document}, "num_key_value_heads", path)
    if sizes["hidden_size"] % (2 * heads) or heads % groups:
        raise InputError(
            f"{path}: hidden_size {sizes['hidden_size']}, num_attention_heads {heads} and num_key_value_heads {groups} "
            "do not divide each other: correct them"
        )
    rotary = document.get("rope_parameters") or {}
    theta = document.get("rope_theta", rotary.get("rope_theta", LlamaConfig.rope_theta))
    epsilon = document.get("rms_norm_eps", LlamaConfig.rms_norm_eps)
    return LlamaConfig(**sizes, num_key_value_heads=groups, rope_theta=float(theta), rms_norm_eps=float(epsilon))


def weight_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor, by the names of Hugging Face's files; no layer has a bias."""
    width, inner = config.hidden_size, config.intermediate_size
    narrow = config.num_key_value_heads * config.head_size
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, width)}
    for number in range(config.num_hidden_layers):
        layer = f"model.layers.{number}"
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (width, width),
            f"{layer}.self_attn.k_proj.weight": (narrow, width),
            f"{layer}.self_attn.v_proj.weight": (narrow, width),
            f"{layer}.self_attn.o_proj.weight": (width, width),
            f"{layer}.mlp.gate_proj.weight": (inner, width),
            f"{layer}.mlp.up_proj.weight": (inner, width),
            f"{layer}.mlp.down_proj.weight": (width, inner),
            f"{layer}.input_layernorm.weight": (width,),
            f"{layer}.post_attention_layernorm.weight": (width,),
        }
    return shapes | {"model.norm.weight": (width,), "lm_head.weight": (config.vocab_size, width)}
