"""The transducer loss beside a sum over all alignments, and the training command."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench_rnnt.benchmark import BENCHMARK
from bench_rnnt.official import ALPHABET
from bench_rnnt.standins.miniature import WEIGHTS, read_weights
from bench_rnnt.standins.speech import SOUNDS, WORDS, Voice, sentence, speak
from bench_rnnt.standins.train import Corpus, masked, spread_channels, transducer_loss
from loadgen.harness.cli import invoke

BLANK = len(ALPHABET)


def alignments(logits: Tensor, labels: list[int], frames: int) -> Tensor:
    """-log of the sum over each way to take `frames` blanks, the last of them at the end, and the labels."""
    logs, moves = logits.log_softmax(-1), frames - 1 + len(labels)
    ways = []
    for taken in combinations(range(moves), len(labels)):
        at, said, way = 0, 0, torch.zeros((), dtype=logits.dtype)
        for move in range(moves):
            is_label = move in taken
            way = way + logs[at, said, labels[said] if is_label else BLANK]
            at, said = at + (not is_label), said + is_label
        ways.append(way + logs[at, said, BLANK])
    return -torch.stack(ways).logsumexp(0)


def test_the_loss_is_the_sum_over_all_alignments() -> None:
    """In a batch of different lengths; gradients too."""
    torch.manual_seed(0)
    logits = torch.randn(5, 5, 4, BLANK + 1, dtype=torch.double, requires_grad=True)
    labels = torch.randint(0, BLANK, (5, 3))
    frames, counts = torch.tensor([5, 3, 1, 4, 1]), torch.tensor([3, 2, 3, 0, 0])
    losses = transducer_loss(logits, labels, frames, counts)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    for n in range(5):
        expected = alignments(logits[n], labels[n, : counts[n]].tolist(), int(frames[n]))
        assert losses[n].item() == pytest.approx(expected.item(), rel=1e-12)
        (brute,) = torch.autograd.grad(expected, logits)
        assert torch.allclose(gradient[n], brute[n], atol=1e-12)


def test_a_long_utterance_has_a_finite_gradient() -> None:
    logits = torch.randn(2, 120, 90, BLANK + 1, requires_grad=True)
    labels = torch.randint(0, BLANK, (2, 89))
    losses = transducer_loss(logits, labels, torch.tensor([120, 7]), torch.tensor([89, 5]))
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert losses.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[1, 7:] == 0).all(), "what is padding teaches nothing"


def test_every_word_can_be_spoken() -> None:
    assert len(set(WORDS)) == len(WORDS) > 200
    assert set("".join(WORDS)) <= set(SOUNDS)


def test_speech_is_as_fast_as_speech_and_never_twice_the_same() -> None:
    rng = np.random.default_rng(0)
    texts = [sentence(rng) for _ in range(20)]
    waves = [speak(text, Voice.drawn(rng), rng) for text in texts]
    rate = 16_000 * sum(map(len, texts)) / sum(map(len, waves))
    assert 12 < rate < 22
    assert all(np.abs(wave.astype(int)).max() > 1_000 for wave in waves)
    voice = Voice.drawn(rng)
    assert not np.array_equal(speak("one", voice, rng)[:2_000], speak("one", voice, rng)[:2_000])


def test_noise_is_as_loud_as_asked() -> None:
    rng = np.random.default_rng(0)
    quiet, noisy = (Voice(120, 1, 1, 0, noise, 0.05) for noise in (60, 6))
    pauses = [np.std(speak(" " * 20, voice, rng).astype(float)) for voice in (quiet, noisy)]
    assert pauses[0] < pauses[1]
    assert np.std(speak("again and again", noisy, rng)) == pytest.approx(0.05 * 32_768 * (1 + 10**-0.6) ** 0.5, rel=0.1)


def test_a_batch_of_the_corpus_has_what_belongs_together() -> None:
    spoken = [(np.full(n, n, np.int16), text) for n, text in ((900, "one"), (700, "a"), (800, "four"))]
    waves, lengths, labels, counts = Corpus(spoken, "cpu").batch(1, 2)
    assert lengths.tolist() == [800, 900]
    assert waves.shape == (2, 900)
    assert (waves[0, :800] == 800).all()
    texts = ["".join(ALPHABET[label] for label in row[:n]) for row, n in zip(labels.tolist(), counts, strict=True)]
    assert texts == ["four", "one"]


def test_masked_bands_are_the_same_in_each_third() -> None:
    x = masked(torch.ones(2, 1, 240), 20, np.random.default_rng(0))
    thirds = x.reshape(2, 3, 80)
    assert (thirds == thirds[:1, :1]).all()
    assert 40 <= thirds[0, 0].sum() < 80
    assert (masked(torch.ones(2, 1, 240), 0, np.random.default_rng(0)) == 1).all()


def test_channels_are_spread_without_changing_an_answer() -> None:
    tensors = read_weights()
    spread = spread_channels(tensors)
    inputs = np.random.default_rng(0).standard_normal((50, tensors["joint.net.0.weight"].shape[1])).astype(np.float32)
    plain, changed = (
        np.maximum(inputs @ t["joint.net.0.weight"].T + t["joint.net.0.bias"], 0) @ t["joint.net.3.weight"].T
        for t in (tensors, spread)
    )
    assert np.allclose(plain, changed, rtol=1e-6, atol=1e-5)
    assert not np.array_equal(tensors["joint.net.0.weight"], spread["joint.net.0.weight"])


def test_it_can_be_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ["--steps", "3", "--batch", "4", "--utterances", "64", "--workers", "1", "--device", "cpu"]
    assert invoke(BENCHMARK, ["train-mini", "--output", str(tmp_path / "w.npz"), *few]) == 0
    assert "step 3 of 3: loss" in capfd.readouterr().out
    with np.load(tmp_path / "w.npz") as made, np.load(WEIGHTS) as committed:
        assert {name: made[name].shape for name in made} == {name: committed[name].shape for name in committed}
