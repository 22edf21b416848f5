"""RNN-T (Graves 2012) with the official model's parts and names: encoder, prediction and joint.

All sequences are [time, batch, values]. Dropout of the training is left out: it computes nothing here.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bench_rnnt.config import RnntConfig
from bench_rnnt.features import SPLICED
from bench_rnnt.official import ALPHABET

State = tuple[Tensor, Tensor]
"""Hidden and cell, each [layers, batch, hidden]."""


class Lstm(nn.Module):
    """`nn.LSTM` one level deeper, because the official names have it there."""

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The outputs, and the state after the last."""
        return cast(tuple[Tensor, State], self.lstm(x, state))


class Encoder(nn.Module):
    """Joined features to a vector every 60 ms."""

    def __init__(self, config: RnntConfig) -> None:
        super().__init__()
        self.stack = config.stack
        self.pre_rnn = Lstm(SPLICED, config.encoder_hidden, config.pre_layers)
        self.post_rnn = Lstm(config.stack * config.encoder_hidden, config.encoder_hidden, config.post_layers)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, B, 240], lengths [B] -> ([ceil(T / 2), B, hidden], ceil(lengths / 2)).

        What lies behind an utterance's end has no influence on it: an LSTM looks back only, and the frame that fills
        up a last pair is zero, as if the utterance were alone.
        """
        x, _ = self.pre_rnn(x)
        past = torch.arange(len(x), device=x.device)[:, None] >= lengths
        x = x.masked_fill(past[:, :, None], 0)
        x, _ = self.post_rnn(self.stacked(x))
        return x, (lengths + self.stack - 1) // self.stack

    def stacked(self, x: Tensor) -> Tensor:
        """[T, B, H] -> [ceil(T / stack), B, stack * H], frames in order, zeros after the last."""
        x = nn.functional.pad(x, (0, 0, 0, 0, 0, -len(x) % self.stack))
        _, batch, width = x.shape
        return x.view(-1, self.stack, batch, width).transpose(1, 2).reshape(-1, batch, self.stack * width)


class Prediction(nn.Module):
    """A language model of labels."""

    def __init__(self, config: RnntConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(ALPHABET), config.prediction_hidden)
        self.dec_rnn = Lstm(config.prediction_hidden, config.prediction_hidden, config.prediction_layers)

    def forward(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """labels [U, B] -> ([U, B, hidden], state after the last)."""
        return cast(tuple[Tensor, State], self.dec_rnn(self.embed(labels), state))

    def begin(self, batch: int) -> tuple[Tensor, State]:
        """([1, B, hidden], state) before the first label: what a zero vector in a label's place brings."""
        weight = self.embed.weight
        return cast(tuple[Tensor, State], self.dec_rnn(weight.new_zeros(1, batch, weight.shape[1])))


class Joint(nn.Module):
    """Both, compared."""

    def __init__(self, config: RnntConfig) -> None:
        super().__init__()
        inputs = config.encoder_hidden + config.prediction_hidden
        last = nn.Linear(config.joint_hidden, len(ALPHABET) + 1)
        # the third is the training's dropout in the official model: `net.3` is the last layer's name
        self.net = nn.Sequential(nn.Linear(inputs, config.joint_hidden), nn.ReLU(), nn.Identity(), last)

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """[..., encoder hidden] and [..., prediction hidden] -> logits [..., 29], the blank last."""
        return cast(Tensor, self.net(torch.cat([encoded, predicted], dim=-1)))


class Rnnt(nn.Module):
    """The whole model; its state dict has the names of `config.weight_shapes`."""

    def __init__(self, config: RnntConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.prediction = Prediction(config)
        self.joint = Joint(config)
