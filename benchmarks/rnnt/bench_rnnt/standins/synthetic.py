"""The `synthetic` profile: the full-size model with random weights, and as much speech as dev-clean has.

Its speed is a full-size model's: it brings as many labels a second as speech does. Its answers mean nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_rnnt.config import RnntConfig, weight_shapes
from bench_rnnt.features import RATE
from bench_rnnt.official import MANIFEST
from bench_rnnt.standins import generate
from bench_rnnt.standins.formats import WRITERS
from bench_rnnt.standins.generate import Spoken
from bench_rnnt.standins.speech import Voice, Wave, sentence, speak
from loadgen.harness.standins.making import check_space, find_writer, tell, write_with, writing

SEED = 1
COUNT = 2_513
SPEAKERS = 40
_SHARES = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.999, 1)
_SECONDS = (1.445, 2.335, 2.685, 3.625, 5.535, 8.42, 10.895, 12.295, 14.95, 15)
"""Of dev-clean's utterances of up to 15 s, these shares are at most so long: read from the official manifest."""
_TEXT_RATE = 14.86  # characters a second of dev-clean's transcripts


def prepare(folder: Path) -> None:
    """Fill `folder/data`, half a minute's work; weights are made when a backend wants them. What is there stays."""
    with writing(folder / "model"):
        pass
    data = folder / "data"
    if not (data / MANIFEST).is_file():
        with writing(data):
            check_space(data / MANIFEST, 400_000_000)
            tell(f"making {data}: {COUNT:,} utterances")
            generate.write(data, speech())


def durations() -> npt.NDArray[np.int64]:
    """Samples of each utterance, in random order."""
    shares = (np.arange(COUNT) + 0.5) / COUNT
    seconds = np.random.default_rng(SEED).permutation(np.interp(shares, _SHARES, _SECONDS))
    return (seconds * RATE).astype(np.int64)


def speech() -> Iterator[Spoken]:
    """Each speaker says a minute of sentences once; an utterance is a piece of it, its text only as long as it."""
    rng = np.random.default_rng(SEED)
    minutes = [_minute(rng) for _ in range(SPEAKERS)]
    for number, samples in enumerate(durations().tolist()):
        speaker = number * SPEAKERS // COUNT
        wave, text = minutes[speaker]
        start, letter = int(rng.integers(len(wave) - samples)), int(rng.integers(len(text) - 300))
        piece = text[letter : letter + math.ceil(samples / RATE * _TEXT_RATE)].strip()
        yield Spoken(speaker, wave[start : start + samples], piece)


def _minute(rng: np.random.Generator) -> tuple[Wave, str]:
    voice = Voice.drawn(rng)
    texts = [sentence(rng) for _ in range(40)]
    waves = [speak(text, voice, rng) for text in texts]
    return np.concatenate(waves), " ".join(texts)


def write_weights(path: Path, seed: int = SEED) -> None:
    """Random weights as the official checkpoint. Raises InputError as `find_writer`, or for a full disk."""
    find_writer(WRITERS, path)
    size = 4 * sum(math.prod(shape) for shape in weight_shapes(RnntConfig()).values())
    check_space(path, size)
    tell(f"making {path}: random weights from seed {seed}, {size / 1e9:.2f} GB")
    began = time.monotonic()
    write_with(WRITERS, path, random_tensors(RnntConfig(), seed))
    tell(f"  done in {time.monotonic() - began:.0f} s")


def random_tensors(config: RnntConfig, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of every shape from a seed, with which frames bring blanks and labels as irregularly as speech does.

    Large weights and little memory make each frame, and each label, unlike the one before; so no label repeats itself
    until the 30th. The last layer's rows have the mean 0, so no label is always the likeliest. The blank's bias then
    sets how often it wins.
    """
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in weight_shapes(config).items():
        tensors[name] = np.zeros(shape, np.float32)
        if len(shape) == 2:
            tensors[name] = rng.standard_normal(shape, np.float32) * np.float32(_gain(name) * shape[1] ** -0.5)
        if ".bias_ih_" in name:
            hidden = shape[0] // 4
            tensors[name][hidden : 2 * hidden] = _FORGET
    tensors["joint.net.3.weight"] -= tensors["joint.net.3.weight"].mean(axis=1, keepdims=True)
    tensors["joint.net.3.bias"][-1] = _BLANK
    return tensors


_GAINS = {
    "encoder.": 8.0,
    "prediction.embed": 3.0,
    "prediction.dec_rnn.lstm.weight_hh": 3.0,  # larger ones let a rounding error grow until labels differ
    "prediction.dec_rnn": 16.0,
    "joint.net.0": 3.0,
    "joint.net.3": 1.0,
}
"""By the beginnings of names, the first that fits."""
_FORGET = -3.0
"""Of the LSTMs' forget gates."""
_BLANK = 1.66
"""With it the full-size model brings 15 labels a second of the profile's speech: measured."""


def _gain(name: str) -> float:
    return next(gain for start, gain in _GAINS.items() if name.startswith(start))
