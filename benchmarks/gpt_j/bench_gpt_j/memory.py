"""Memory of a model's weights, keys and values, before it is loaded."""

from __future__ import annotations

import math

from bench_gpt_j.config import GPTJ_6B, GPTJConfig, weight_shapes
from bench_gpt_j.official import BEAMS, LONGEST, MAX_NEW

SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number."""


def parameters(config: GPTJConfig) -> int:
    """Of all layers."""
    return sum(math.prod(shape) for shape in weight_shapes(config).values())


def of_search(config: GPTJConfig, places: int, size: int) -> int:
    """Bytes of the keys and values of one search with so many places. size: of a number."""
    return 2 * config.n_layer * config.n_embd * places * size


def of_6b(backend: str, dtype: str, batch: int, device: str = "cuda") -> float:
    """GB that a run of GPT-J 6B takes (`Profile.memory_gb`): each search has room for the longest."""
    size = SIZES[dtype]
    return (parameters(GPTJ_6B) * size + batch * of_search(GPTJ_6B, LONGEST + BEAMS * MAX_NEW, size)) / 1e9
