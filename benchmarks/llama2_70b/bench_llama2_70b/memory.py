"""Memory of a model's weights, keys and values, before it is loaded."""

from __future__ import annotations

import math

from bench_llama2_70b.config import LLAMA_13B, LLAMA_70B, LlamaConfig, weight_shapes

SIZES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}
"""Bytes of a number."""


def parameters(config: LlamaConfig) -> int:
    """Of all layers."""
    return sum(math.prod(shape) for shape in weight_shapes(config).values())


def of_token(config: LlamaConfig, size: int) -> int:
    """Bytes of the keys and values of one token. size: of a number."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_size * size


def of_70b(backend: str, dtype: str, batch: int, device: str = "cuda") -> float:
    """GB that a run of Llama 2 70B takes (`Profile.memory_gb`), with 574 tokens a request: an average one, whole."""
    return _taken(LLAMA_70B, backend, dtype, batch)


def of_13b(backend: str, dtype: str, batch: int, device: str = "cuda") -> float:
    """As `of_70b`."""
    return _taken(LLAMA_13B, backend, dtype, batch)


def _taken(config: LlamaConfig, backend: str, dtype: str, batch: int) -> float:
    if backend == "endpoint":  # a client
        return 1.0
    size = SIZES[dtype]
    return (parameters(config) * size + batch * 574 * of_token(config, size)) / 1e9
