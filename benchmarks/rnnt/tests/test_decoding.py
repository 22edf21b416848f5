"""A batch's labels are, one for one, those of the sequential rule. Where there is no GPU, the CPU does what a GPU's
recordings would."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench_rnnt.config import RnntConfig
from bench_rnnt.model import Rnnt
from bench_rnnt.official import MAX_SYMBOLS
from bench_rnnt.pytorch import gpu
from bench_rnnt.pytorch.decoding import BLANK, ROUNDS, Greedy, Labels, decode, decode_one

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
@pytest.mark.parametrize("most", [1, 7, 20])
def test_recordings_decode_the_same(most: int, random_model: Maker) -> None:
    """With fewer utterances than room, and again after another batch: nothing is left of that."""
    for seed in range(6):
        model = random_model(seed, CONFIGS[seed % 3], blank=0.5 * seed - 1).to(DEVICE)
        greedy = Greedy(model)
        decoder = gpu.Decoder(greedy, most, 20, 20 * MAX_SYMBOLS, DEVICE)
        for count in {most, max(1, most - 3)}:
            x, lengths = speech(seed + count, count)
            encoded, frames = model.encoder(x.to(DEVICE), lengths.to(DEVICE))
            assert as_lists(decoder(encoded, frames)) == as_lists(decode(greedy, encoded, frames))


@torch.inference_mode()
def test_utterances_that_still_run_move_to_smaller_recordings(
    random_model: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(3, CONFIGS[0]).to(DEVICE)
    decoder = gpu.Decoder(Greedy(model), 64, 20, 20 * MAX_SYMBOLS, DEVICE)
    used: list[int] = []
    replay = gpu._Recording.replay
    monkeypatch.setattr(gpu._Recording, "replay", lambda self: used.append(self.size) or replay(self))  # type: ignore[func-returns-value]
    x, lengths = speech(3, 64)
    decoder(*model.encoder(x.to(DEVICE), lengths.to(DEVICE)))
    assert used == sorted(used, reverse=True)
    assert set(used) == {64, 32, 16}


def test_too_large_a_batch_is_an_error(random_model: Maker) -> None:
    with torch.inference_mode():
        decoder = gpu.Decoder(Greedy(random_model(0, CONFIGS[0]).to(DEVICE)), 4, 10, 300, DEVICE)
        with pytest.raises(ValueError, match="5 utterances of 3 frames, 4 of 10 fit"):
            decoder(torch.zeros(3, 5, 12).double(), torch.full((5,), 3))
        with pytest.raises(ValueError, match="1 utterances of 11 frames"):
            decoder(torch.zeros(11, 1, 12).double(), torch.full((1,), 11))


@torch.inference_mode()
def test_finished_utterances_leave_the_batch(random_model: Maker) -> None:
    """A round costs as much as the utterances that it is given."""
    model = random_model(0, CONFIGS[0], blank=-1)
    greedy, sizes = Greedy(model), []

    def rounds(frames: Tensor, state: gpu.State, labels: Labels) -> None:
        sizes.append(len(state.rows))
        for _ in range(ROUNDS):
            greedy.round(frames, state, labels)

    encoded, frames = model.encoder(*speech(0, 30))
    decode(greedy, encoded, frames, rounds)
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
