"""BERT for question answering in PyTorch. Parameter names are those of the official `model.pytorch`.

Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers (2018): post-norm encoder, erf GELU,
learned positions; a linear head gives a start and an end logit a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_bert.config import BertConfig


@dataclass(frozen=True)
class Packed:
    """Sequences one after another in a single row of tokens, without padding."""

    starts: Tensor
    """int32 [n + 1]: where each begins, and where the last ends."""
    longest: int


def packed_attention(q: Tensor, k: Tensor, v: Tensor, packed: Packed) -> Tensor:
    """Attention within each sequence, [tokens, heads, size] -> the same."""
    if q.is_cuda and q.dtype != torch.float32:  # the kernel's dtypes
        from torch.nn.attention.varlen import varlen_attn

        attended = varlen_attn(q, k, v, packed.starts, packed.starts, packed.longest, packed.longest)
        assert isinstance(attended, Tensor)
        return attended
    ends = packed.starts[1:-1].tolist()
    parts = zip(*(torch.tensor_split(x.transpose(0, 1), ends, dim=1) for x in (q, k, v)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part) for part in parts], dim=1).transpose(0, 1)


class Embeddings(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, ids: Tensor, segments: Tensor, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        summed = self.word_embeddings(ids) + self.position_embeddings(positions)
        output: Tensor = self.LayerNorm(summed + self.token_type_embeddings(segments))
        return output


class SelfAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | Packed | None) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)) for f in (self.query, self.key, self.value))
        if isinstance(mask, Packed):
            return packed_attention(q, k, v, mask).flatten(1)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class Residual(nn.Module):
    """Projects a sublayer's output back, adds its input and normalises."""

    def __init__(self, width: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        output: Tensor = self.LayerNorm(self.dense(x) + before)
        return output


class Attention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Residual(config.hidden_size, config)

    def forward(self, x: Tensor, mask: Tensor | Packed | None) -> Tensor:
        output: Tensor = self.output(self.self(x, mask), x)
        return output


class Intermediate(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Residual(config.intermediate_size, config)

    def forward(self, x: Tensor, mask: Tensor | Packed | None) -> Tensor:
        x = self.attention(x, mask)
        output: Tensor = self.output(self.intermediate(x), x)
        return output


class Encoder(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, mask: Tensor | Packed | None) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Bert(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)


class BertForQuestionAnswering(nn.Module):
    """ids, mask, segments: int64 [n, S], mask 1 on tokens and 0 on padding -> start, end logits [n, S]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = Bert(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)

    def forward(self, ids: Tensor, mask: Tensor | None, segments: Tensor) -> tuple[Tensor, Tensor]:
        attend = None if mask is None else mask.bool()[:, None, None, :]
        x = self.bert.encoder(self.bert.embeddings(ids, segments), attend)
        start, end = self.qa_outputs(x).unbind(-1)
        return start, end

    def packed(self, tokens: Tensor, packed: Packed) -> Tensor:
        """tokens: int [3, T], the ids, segments and positions of all sequences -> float32 logits [T, 2]."""
        ids, segments, positions = tokens.unbind()
        x = self.bert.encoder(self.bert.embeddings(ids, segments, positions), packed)
        logits: Tensor = self.qa_outputs(x)
        return logits.float()
