"""Names and shapes of all weights, for those who write them."""

from __future__ import annotations

import torch
from torch import nn

from bench_sdxl.config import Configs
from bench_sdxl.official import WEIGHTS
from bench_sdxl.pytorch.pipeline import Pipeline
from bench_sdxl.scorers.inception import Inception

Shapes = dict[str, tuple[int, ...]]


def shapes(configs: Configs) -> dict[str, Shapes]:
    """Of each part's official file, the VAE's encoder included."""
    with torch.device("meta"):
        pipeline = Pipeline(configs, encodes=True)
    return {part: _of(getattr(pipeline, part)) for part in WEIGHTS}


def _of(network: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def inception_shapes() -> Shapes:
    """Of FID's network, with its 1,008 classes."""
    with torch.device("meta"):
        network = Inception(first=32, classes=1008)
    return {name: shape for name, shape in _of(network).items() if not name.endswith("num_batches_tracked")}
