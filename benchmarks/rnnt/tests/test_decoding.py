"""A batch's labels are, one for one, those of the sequential rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench_rnnt.config import RnntConfig
from bench_rnnt.model import Rnnt
from bench_rnnt.official import MAX_SYMBOLS
from bench_rnnt.pytorch.decoding import BLANK, Greedy, Labels, State, decode, decode_one

Maker = Callable[..., Rnnt]
CONFIGS = [
    RnntConfig(12, 1, 1, 10, 1, 16),
    RnntConfig(10, 1, 2, 12, 2, 12),
    RnntConfig(8, 2, 1, 6, 3, 20),
]


def speech(seed: int, count: int, longest: int = 40) -> tuple[Tensor, Tensor]:
    """(features [T, B, 240], lengths [B]) of random utterances; one has a single frame."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=draw)
    lengths[0] = 1
    return torch.randn(int(lengths.max()), count, 240, generator=draw, dtype=torch.double) * 0.3, lengths


def one_by_one(model: Rnnt, x: Tensor, lengths: Tensor) -> list[list[int]]:
    """Each utterance alone, the encoder included."""
    found = []
    for row, length in enumerate(lengths.tolist()):
        encoded, frames = model.encoder(x[:length, row, None], lengths[row, None])
        found.append(decode_one(model, encoded, int(frames)))
    return found


def as_lists(labels: Labels) -> list[list[int]]:
    return [ids[:count].tolist() for ids, count in zip(labels.ids, labels.counts.tolist(), strict=True)]


@torch.inference_mode()
def test_500_random_utterances_are_decoded_as_one_by_one(random_model: Maker) -> None:
    """Of 50 models; among the labels are frames with none, with one and with the most that a frame may have."""
    empty = full = 0
    for seed in range(50):
        model = random_model(seed, CONFIGS[seed % 3], blank=0.6 * (seed % 6) - 1)
        x, lengths = speech(seed, 10, longest=24)
        encoded, frames = model.encoder(x, lengths)
        expected = one_by_one(model, x, lengths)
        assert as_lists(decode(Greedy(model), encoded, frames)) == expected, seed
        empty += sum(not labels for labels in expected)
        full += sum(len(labels) >= MAX_SYMBOLS for labels in expected)
    assert empty > 20, "some utterances have no label"
    assert full > 20, "some frames have as many as they may"


@torch.inference_mode()
def test_finished_utterances_leave_the_batch(random_model: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round costs as much as the utterances that it is given."""
    model = random_model(0, CONFIGS[0], blank=-1)
    sizes: list[int] = []
    plain = Greedy.round

    def counted(self: Greedy, frames: Tensor, state: State, labels: Labels) -> None:
        sizes.append(len(state.rows))
        plain(self, frames, state, labels)

    monkeypatch.setattr(Greedy, "round", counted)
    decode(Greedy(model), *model.encoder(*speech(0, 30)))
    assert sizes[0] == 30
    assert sizes[-1] < 10


@torch.inference_mode()
def test_a_frame_has_at_most_30_labels(random_model: Maker) -> None:
    model = random_model(0, CONFIGS[0], blank=-1000)
    labels = decode(Greedy(model), *model.encoder(*speech(0, 5)))
    assert labels.counts.tolist() == (MAX_SYMBOLS * ((speech(0, 5)[1] + 1) // 2)).tolist()
    assert not (labels.ids[2, : labels.counts[2]] == BLANK).any()


@torch.inference_mode()
def test_the_first_prediction_is_of_a_zero_vector(random_model: Maker) -> None:
    """Not of a blank's or a space's embedding."""
    model = random_model(1, CONFIGS[1])
    state = Greedy(model).begin(torch.tensor([5, 5]))
    predicted, (hidden, cell) = model.prediction.begin(2)
    assert torch.allclose(state.hidden.transpose(0, 1), hidden)
    assert torch.allclose(state.cell.transpose(0, 1), cell)
    assert torch.allclose(state.hidden[:, -1], predicted[0])
    assert not torch.allclose(model.prediction(torch.zeros(1, 2, dtype=torch.long))[0], predicted)
