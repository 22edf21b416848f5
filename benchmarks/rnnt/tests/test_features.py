"""Features are the official ones: beside librosa's, recorded by `make_golden.py`, and a plain NumPy reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_rnnt import features as constants
from bench_rnnt.features import SHORTEST, hann, joined_frames, mel_filters
from bench_rnnt.pytorch.features import Featurizer, normalised

GOLDEN = Path(__file__).parent / "golden" / "librosa.npz"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(GOLDEN) as stored:
        return dict(stored)


def computed(waves: list[Any]) -> list[Any]:
    """Each utterance's features [L, 240], computed in one batch."""
    columns = [torch.from_numpy(wave) for wave in waves]
    lengths = torch.tensor([len(wave) for wave in waves])
    x, joined = Featurizer()(torch.nn.utils.rnn.pad_sequence(columns, batch_first=True), lengths)
    return [x[:length, row].numpy() for row, length in enumerate(joined.tolist())]


def reference(wave: Any) -> Any:
    """The same, frame by frame in 64 bits, with a Fourier transform written out."""
    y = wave / 32768.0
    y = np.concatenate([y[:1], y[1:] - 0.97 * y[:-1]])
    y = np.concatenate([y[256:0:-1], y, y[-2:-258:-1]])
    window = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(320) / 319), 96)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(512)) / 512)
    frames = []
    for at in range(0, len(y) - 511, 160):
        power = np.abs(turns @ (y[at : at + 512] * window)) ** 2 + 1e-10
        frames.append(np.log(mel_filters().astype(np.float64) @ power + 1e-20))
    frames += [np.zeros(80)] * 2
    joined = np.array([np.concatenate(frames[at : at + 3]) for at in range(0, len(frames) - 2, 3)])
    joined = joined[: joined_frames(len(wave))]
    return (joined - joined.mean(0)) / (joined.std(0, ddof=1) + 1e-5)


def test_mel_filters_are_librosas(golden: dict[str, Any]) -> None:
    assert np.abs(mel_filters() - golden["mel"]).max() < 1e-8


def test_features_are_librosas(golden: dict[str, Any]) -> None:
    waves = [golden[f"wave{number}"] for number in range(3)]
    for number, found in enumerate(computed(waves)):
        assert found.shape == golden[f"features{number}"].shape
        assert np.abs(found - golden[f"features{number}"]).max() < TOLERANCE


@pytest.mark.parametrize("samples", [SHORTEST, 640, 4_799, 4_800, 4_801, 16_000, 23_457])
def test_features_are_the_references(samples: int) -> None:
    wave = np.random.default_rng(samples).normal(0, 3000, samples).astype(np.int16)
    (found,), expected = computed([wave]), reference(wave)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < TOLERANCE * (10 if samples == SHORTEST else 1)  # two frames, nearly equal


def test_a_batch_changes_nothing() -> None:
    """Neither its padding nor other samples' floors of the deviation: silence, whose deviation is 0, shows these."""
    rng = np.random.default_rng(5)
    waves = [rng.normal(0, scale, n).astype(np.int16) for n, scale in ((9_000, 3000), (SHORTEST, 50), (16_000, 900))]
    waves.insert(1, np.zeros(5_000, np.int16))
    for alone, together in zip((computed([wave])[0] for wave in waves), computed(waves), strict=True):
        assert np.abs(alone - together).max() < 1e-5


def test_behind_the_end_is_nothing() -> None:
    waves = torch.zeros(2, 16_000, dtype=torch.int16)
    waves[0], waves[1, :8_000] = 100, torch.arange(8_000)
    x, lengths = Featurizer()(waves, torch.tensor([16_000, 8_000]))
    assert lengths.tolist() == [34, 17]
    assert x.shape == (34, 2, 240)
    assert (x[17:, 1] == 0).all()


def test_the_order_of_spliced_frames() -> None:
    """The frame itself first, then those after it: of a click, each third of a row hears another part."""
    wave = np.zeros(4_800, np.int16)
    wave[7 * 160] = 30_000  # the middle of frame 7, which is the second of the joined frame 2
    (found,) = computed([wave])
    thirds = found[2].reshape(3, 80).mean(axis=1)
    assert thirds.argmax() == 1


def test_normalising_uses_the_unbiased_deviation() -> None:
    x = torch.tensor([[[1.0], [2.0], [6.0], [99.0]]])
    values = normalised(x, torch.tensor([3]))[0, :, 0]
    expected = (np.array([1, 2, 6]) - 3) / (np.std([1, 2, 6], ddof=1) + 1e-5)
    assert np.allclose(values, [*expected, 0])


def test_counts_and_window() -> None:
    assert [joined_frames(n) for n in (SHORTEST, 480, 481, 960, 961, 240_000)] == [2, 1, 2, 2, 3, 500]
    assert joined_frames(np.array([481, 961])).tolist() == [2, 3]
    assert np.allclose(hann(), np.hanning(constants.WINDOW), atol=1e-7)
