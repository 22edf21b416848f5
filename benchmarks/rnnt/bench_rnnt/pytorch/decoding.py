"""Greedy decoding of a batch, label by label, with exactly the labels of the sequential rule.

The rule, for each utterance alone: the joint compares the frame with the prediction. A label is taken, the prediction
goes on with it, and the same frame is asked again; a blank, or the 30th label of a frame, leads to the next frame.

Two things make it fast (Bataev et al. 2024, Label-Looping). As long as blanks come, the prediction stays the same, so
some frames ahead are compared at once: the joint costs a hundredth of the prediction. And the utterances of a batch
are not kept at the same frame, but at the same number of rounds: each round takes every utterance to its next label.

A GPU does the same in one kernel (see `kernels`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bench_rnnt.model import Rnnt
from bench_rnnt.official import ALPHABET, MAX_SYMBOLS

BLANK = len(ALPHABET)
AHEAD = 4
"""Frames that are compared at once. Speech has a label for each 60 ms frame, or nearly so."""
ROUNDS = 16
"""After so many, finished utterances leave the batch."""


@dataclass
class Labels:
    """What has been found of all utterances of a batch."""

    ids: Tensor
    """int8 [N, most labels + 1]."""
    counts: Tensor
    """int64 [N], how many of each row are valid."""


@dataclass
class State:
    """Where each utterance that still runs is; all tensors have one row for each."""

    rows: Tensor
    """Its row in `Labels`, and in the encoder's output."""
    lengths: Tensor
    """In encoder frames."""
    time: Tensor
    """The frame that is compared next; its length or more: it is finished."""
    here: Tensor
    """Labels that this frame has brought."""
    count: Tensor
    """Labels in all."""
    hidden: Tensor
    """[B, layers, prediction hidden]."""
    cell: Tensor
    predicted: Tensor
    """[B, joint hidden], the prediction's part of the joint's first layer."""

    def take(self, chosen: Tensor) -> State:
        """The utterances at these positions."""
        return State(*(getattr(self, field.name)[chosen] for field in fields(self)))


class Greedy:
    """The prediction's and joint's weights, in the form in which a round uses them."""

    def __init__(self, model: Rnnt) -> None:
        first, last = model.joint.net[0], model.joint.net[3]
        assert isinstance(first, torch.nn.Linear)
        assert isinstance(last, torch.nn.Linear)
        width = model.encoder.post_rnn.lstm.hidden_size
        self.encoder_part, self.prediction_part = first.weight[:, :width].T, first.weight[:, width:].T
        self.bias = first.bias
        self.last_weight, self.last_bias = last.weight.T, last.bias
        lstm = model.prediction.dec_rnn.lstm
        layers = [[getattr(lstm, f"{name}_l{n}") for name in _PARTS] for n in range(lstm.num_layers)]
        self.biases = [ih + hh for _, _, ih, hh in layers]
        # what the first layer makes of each label, and of the zero vector that stands before the first one
        embedded = torch.cat(
            [model.prediction.embed.weight, model.prediction.embed.weight.new_zeros(1, lstm.input_size)]
        )
        self.table = embedded @ layers[0][0].T + self.biases[0]
        self.recurrent = layers[0][1].T
        self.later = [torch.cat([inputs, hidden], dim=1).T for inputs, hidden, *_ in layers[1:]]

    def project(self, encoded: Tensor) -> Tensor:
        """[T, B, encoder hidden] -> [B, T, joint hidden]: the encoder's part of the joint's first layer."""
        return torch.addmm(self.bias, encoded.transpose(0, 1).flatten(0, 1), self.encoder_part).view(
            encoded.shape[1], encoded.shape[0], -1
        )

    def begin(self, lengths: Tensor) -> State:
        """All utterances before their first label."""
        count, width = len(lengths), self.recurrent.shape[0]
        zeros = torch.zeros_like(lengths)
        state = self.table.new_zeros(count, 1 + len(self.later), width)
        start = zeros + len(ALPHABET)
        hidden, cell = self.predict(start, state, state)
        rows = torch.arange(count, device=lengths.device)
        predicted = hidden[:, -1] @ self.prediction_part
        return State(rows, lengths, zeros, zeros.clone(), zeros.clone(), hidden, cell, predicted)

    def predict(self, labels: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction's state after one more label each, [B]."""
        gates = torch.addmm(self.table[labels], hidden[:, 0], self.recurrent)
        states = [_cell(gates, cell[:, 0])]
        for layer, weight in enumerate(self.later, 1):
            inputs = torch.cat([states[-1][0], hidden[:, layer]], dim=1)
            states.append(_cell(torch.addmm(self.biases[layer], inputs, weight), cell[:, layer]))
        return torch.stack([h for h, _ in states], dim=1), torch.stack([c for _, c in states], dim=1)

    def round(self, frames: Tensor, state: State, labels: Labels) -> None:
        """Take each utterance to its next label, or AHEAD frames on if these bring none. In place.

        frames: see `project`. A finished utterance stays as it is.
        """
        ahead = state.time[:, None] + torch.arange(AHEAD, device=frames.device)
        around = frames[state.rows[:, None], ahead.clamp(max=frames.shape[1] - 1)]
        joint = torch.relu(around + state.predicted[:, None])
        found = torch.addmm(self.last_bias, joint.flatten(0, 1), self.last_weight).argmax(1).view(ahead.shape)
        is_label = (found != BLANK) & (ahead < state.lengths[:, None])
        has_label, first = is_label.any(1), is_label.to(torch.int8).argmax(1)
        label = found.gather(1, first[:, None])[:, 0]
        # a label that is none is written too, where the next one will be
        labels.ids[state.rows, state.count] = label.to(torch.int8)
        state.count += has_label
        self._move(state, has_label, torch.where(has_label, first, AHEAD))
        hidden, cell = self.predict(label, state.hidden, state.cell)
        keep = ~has_label[:, None, None]
        state.hidden.copy_(torch.where(keep, state.hidden, hidden))
        state.cell.copy_(torch.where(keep, state.cell, cell))
        state.predicted.copy_(state.hidden[:, -1] @ self.prediction_part)

    @staticmethod
    def _move(state: State, has_label: Tensor, frames: Tensor) -> None:
        """So many frames on, and one more where the frame is full."""
        here = torch.where(frames > 0, 0, state.here) + has_label
        is_full = here >= MAX_SYMBOLS
        state.here.copy_(torch.where(is_full, 0, here))
        state.time += torch.where(state.time < state.lengths, frames + is_full, 0)


_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM from its gates [B, 4 H], in PyTorch's order."""
    into, forget, new, out = gates.chunk(4, dim=1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(new)
    return torch.sigmoid(out) * torch.tanh(cell), cell


def decode(greedy: Greedy, encoded: Tensor, lengths: Tensor) -> Labels:
    """All labels of a batch: encoded [T, B, hidden], lengths [B] in encoder frames, on one device."""
    frames = greedy.project(encoded)
    state = greedy.begin(lengths)
    ids = torch.empty(len(lengths), MAX_SYMBOLS * len(encoded) + 1, dtype=torch.int8, device=lengths.device)
    labels = Labels(ids, torch.zeros_like(lengths))
    while len(state.rows):
        for _ in range(ROUNDS):
            greedy.round(frames, state, labels)
        labels.counts[state.rows] = state.count
        state = state.take((state.time < state.lengths).nonzero()[:, 0])
    return labels


def decode_one(model: Rnnt, encoded: Tensor, length: int) -> list[int]:
    """The sequential rule, as plainly as it can be said: encoded [T, 1, hidden]. What `decode` is compared with."""
    labels: list[int] = []
    predicted, state = model.prediction.begin(1)
    for time in range(length):
        for _ in range(MAX_SYMBOLS):
            label = int(model.joint(encoded[time], predicted[0]).argmax())
            if label == BLANK:
                break
            labels.append(label)
            predicted, state = model.prediction(torch.tensor([[label]], device=encoded.device), state)
    return labels
