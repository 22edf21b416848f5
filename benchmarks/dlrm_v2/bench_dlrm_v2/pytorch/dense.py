"""All but the tables on a GPU in 16 bits, with few passes over memory beside the products.

The bottom's output is written beside the bags, where the lookup has left room for it; ReLU is done before a product
leaves the registers; what a cross layer does to its product is one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench_dlrm_v2.model import Dense

Network = Callable[[Tensor, Tensor], Tensor]
"""Probabilities [n] of features [n, 13], and of bags [n, dim + tables * dim] whose first `dim` columns are room for the
bottom's output."""


def for_gpu(network: Dense, dim: int) -> Network:
    """The network in its number format; float32 is left to PyTorch."""
    if next(network.parameters()).dtype == torch.float32:
        return lambda dense, start: network(dense, start[:, dim:])
    return Fused(network)


class Fused:
    """`model.Dense` as a `Network`."""

    def __init__(self, network: Dense) -> None:
        self._bottom = _layers(network.dense_arch["model"])
        crossnet: Any = network.inter_arch["crossnet"]
        self._crosses = list(zip(crossnet.V_kernels, crossnet.W_kernels, crossnet.bias, strict=True))
        *self._top, self._last = _layers(network.over_arch["model"])

    def __call__(self, dense: Tensor, start: Tensor) -> Tensor:
        bottom = _relu(dense, self._bottom)
        start[:, : bottom.shape[1]] = bottom
        values = start
        for v, w, bias in self._crosses:
            values = torch.addcmul(values, start, F.linear(F.linear(values, v), w, bias))
        logits = F.linear(_relu(values, self._top), self._last.weight, self._last.bias)
        return torch.sigmoid(logits.squeeze(1).float())


def _layers(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _relu(values: Tensor, layers: Sequence[nn.Linear]) -> Tensor:
    """Through linear layers with ReLU after each."""
    for layer in layers:
        values = torch._addmm_activation(layer.bias, values, layer.weight.T)
    return values
