"""DLRM-DCNv2: a bottom perceptron, sums of embeddings, a low-rank cross network and a top perceptron.

Modules have the names that torchrec gives them, so that its weights fit as they are.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench_dlrm_v2.config import DlrmConfig


class Perceptron(nn.Module):
    """Linear layers, ReLU after each."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self._mlp = nn.ModuleList(nn.ModuleDict({"_linear": nn.Linear(*pair)}) for pair in pairwise(widths))

    def forward(self, values: Tensor) -> Tensor:
        for layer in self._mlp:
            assert isinstance(layer, nn.ModuleDict)
            values = F.relu(layer["_linear"](values))
        return values


class LowRankCross(nn.Module):
    """x <- x0 * (W (V x) + b) + x, some times: every layer raises the degree of what is multiplied by one."""

    def __init__(self, config: DlrmConfig) -> None:
        super().__init__()
        width, rank, layers = config.width, config.rank, range(config.cross_layers)
        self.V_kernels = nn.ParameterList(nn.Parameter(torch.empty(rank, width)) for _ in layers)
        self.W_kernels = nn.ParameterList(nn.Parameter(torch.empty(width, rank)) for _ in layers)
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in layers)
        for kernel in (*self.V_kernels, *self.W_kernels):
            nn.init.xavier_normal_(kernel)

    def forward(self, start: Tensor) -> Tensor:
        values = start
        for v, w, bias in zip(self.V_kernels, self.W_kernels, self.bias, strict=True):
            values = start * F.linear(F.linear(values, v), w, bias) + values
        return values


class Dense(nn.Module):
    """All but the tables: what has one size whatever the number of rows."""

    def __init__(self, config: DlrmConfig) -> None:
        super().__init__()
        self.dense_arch = nn.ModuleDict({"model": Perceptron((config.dense, *config.bottom))})
        self.inter_arch = nn.ModuleDict({"crossnet": LowRankCross(config)})
        top = Perceptron((config.width, *config.top)), nn.Linear(config.top[-1], 1)
        self.over_arch = nn.ModuleDict({"model": nn.Sequential(*top)})

    def forward(self, dense: Tensor, bags: Tensor) -> Tensor:
        """Probabilities [n] of features [n, 13] and bags [n, tables * dim], table after table.

        The sigmoid is computed in float32: in 16 bits many pairs would come out equal, and AUC counts their order.
        """
        start = torch.cat([self.dense_arch["model"](dense), bags], dim=1)
        logits = self.over_arch["model"](self.inter_arch["crossnet"](start))
        return torch.sigmoid(logits.squeeze(1).float())


class Dlrm(Dense):
    """The whole model, each table a parameter: to train the miniature, and to compare with."""

    def __init__(self, config: DlrmConfig) -> None:
        super().__init__(config)
        bags = {
            f"t_cat_{number}": nn.EmbeddingBag(rows, config.dim, mode="sum") for number, rows in enumerate(config.rows)
        }
        self.sparse_arch = nn.ModuleDict(
            {"embedding_bag_collection": nn.ModuleDict({"embedding_bags": nn.ModuleDict(bags)})}
        )

    def predict(self, dense: Tensor, indices: list[Tensor]) -> Tensor:
        """Probabilities [n]; indices: [n, hot] of each table."""
        collection = self.sparse_arch["embedding_bag_collection"]
        assert isinstance(collection, nn.ModuleDict)
        tables = collection["embedding_bags"]
        assert isinstance(tables, nn.ModuleDict)
        return self(dense, torch.cat([bag(ids) for bag, ids in zip(tables.values(), indices, strict=True)], dim=1))  # type: ignore[no-any-return]
