"""Keys and values in pages, and attention over them, in plain PyTorch.

A kernel that reads pages where they lie takes the place of `Rows.attend`; nothing else knows how they are read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench_llama2_70b.config import LlamaConfig
from bench_llama2_70b.pytorch.model import Attend


class Cache:
    """Keys and values [layers, pages, key-value heads, tokens of a page, D]. In 8 bits they are e4m3, not scaled."""

    def __init__(
        self, config: LlamaConfig, ranks: int, pages: int, page: int, like: Tensor, dtype: torch.dtype
    ) -> None:
        """like: says the device, and the format that attention computes in."""
        shape = (config.num_hidden_layers, pages, config.num_key_value_heads // ranks, page, config.head_size)
        self.keys, self.values = (torch.zeros(shape, dtype=dtype, device=like.device) for _ in range(2))
        self.page, self.computed = page, like.dtype

    def attend(self, single: Rows | None, chunks: Rows | None, places: Tensor) -> Attend:
        """For one step: its rows of one token, then those of several. places [T]: where its tokens are kept."""

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            for kept, new in ((self.keys[layer], keys), (self.values[layer], values)):
                _bytes(kept)[places // self.page, :, places % self.page] = _bytes(new.to(kept.dtype))
            made = []
            if single:
                made.append(single.attend(self, layer, queries[: len(single.pages)]))
            if chunks:
                made.append(chunks.attend(self, layer, queries[len(single.pages) if single else 0 :]))
            return made[0] if len(made) == 1 else torch.cat(made)

        return attend

    def places(self, pages: Tensor, positions: Tensor) -> Tensor:
        """Where tokens are kept, of pages [n, P] and positions [n, m]: [n, m] places."""
        return pages.gather(1, positions // self.page) * self.page + positions % self.page

    def gathered(self, kept: Tensor, pages: Tensor) -> Tensor:
        """[n, heads, P * page, D] of one layer's keys or values."""
        return _bytes(kept)[pages].view(kept.dtype).transpose(1, 2).flatten(2, 3).to(self.computed)


def _bytes(x: Tensor) -> Tensor:
    """Numbers of 8 bits as bytes, which PyTorch can index on any device; others as they are."""
    return x.view(torch.uint8) if x.dtype is torch.float8_e4m3fn else x


@dataclass(frozen=True)
class Rows:
    """Rows of a step that attend together, padded to the longest."""

    pages: Tensor
    """[n, P]"""
    seen: Tensor
    """[n, 1, m, P * page] which keys each query sees."""
    padded: Tensor | None = None
    """[n, m] each row's tokens among the queries of all rows; None: one each, in order."""
    real: Tensor | None = None
    """[n, m] is it a token, or padding?"""

    def attend(self, cache: Cache, layer: int, queries: Tensor) -> Tensor:
        """Queries [T, heads, D] of these rows -> [T, heads, D].

        The queries that share a key are put in one matrix, so no key is copied for each of them.
        """
        keys, values = (cache.gathered(kept[layer], self.pages) for kept in (cache.keys, cache.values))
        rows = queries.unsqueeze(1) if self.padded is None else queries[self.padded]
        (n, m, heads, size), groups = rows.shape, keys.shape[1]
        shared = heads // groups
        grouped = rows.view(n, m, groups, shared, size).permute(0, 2, 3, 1, 4)
        mask = self.seen.unsqueeze(2).expand(-1, -1, shared, -1, -1).flatten(2, 3)
        made = F.scaled_dot_product_attention(grouped.flatten(2, 3), keys, values, attn_mask=mask)
        made = made.reshape(n, groups, shared, m, size).permute(0, 3, 1, 2, 4).reshape(n, m, heads, size)
        return made.squeeze(1) if self.real is None else made[self.real]


def rows_of(pages: Tensor, positions: Tensor, page: int, **padding: Tensor) -> Rows:
    """pages [n, P], positions [n, m]."""
    keys = torch.arange(pages.shape[1] * page, device=pages.device)
    return Rows(pages, (keys <= positions[..., None]).unsqueeze(1), **padding)
