"""Records what librosa makes of three utterances: `python make_golden.py`, with librosa 0.11 and soundfile installed.

librosa brings numba and 360 MB, so it is no package that the tests need each day.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import librosa  # type: ignore[import-not-found,unused-ignore]
import numpy as np

FILE = Path(__file__).parent / "golden" / "librosa.npz"
LENGTHS = (4_800, 7_919, 12_001)  # a whole number of frames, and two that are not


def utterance(rng: np.random.Generator, samples: int) -> Any:
    """Tones that rise over noise, with a pause."""
    time = np.arange(samples) / 16_000
    tones = sum(np.sin(2 * np.pi * (pitch + 300 * time) * time) for pitch in rng.uniform(100, 4000, 3))
    loud = 2000 * tones * (np.sin(9 * time) > -0.3) + rng.normal(0, 400, samples)
    return np.clip(loud, -32768, 32767).astype(np.int16)


def features(wave: Any) -> Any:
    """[frames, 240] by librosa's functions, with the official constants."""
    y = librosa.effects.preemphasis(wave / 32768.0, coef=0.97, zi=np.array([0.0]))
    window = np.hanning(320)
    spectrum = librosa.stft(
        y, n_fft=512, hop_length=160, win_length=320, window=window, center=True, pad_mode="reflect"
    )
    power = np.abs(spectrum) ** 2 + 1e-10
    mel = np.log(filters() @ power + 1e-20)
    shifted = [np.pad(mel, ((0, 0), (0, n)))[:, n:] for n in range(3)]
    joined = np.concatenate(shifted)[:, ::3]
    joined = joined[:, : math.ceil(math.ceil(len(wave) / 160) / 3)]
    mean, deviation = joined.mean(axis=1, keepdims=True), joined.std(axis=1, keepdims=True, ddof=1)
    return ((joined - mean) / (deviation + 1e-5)).T


def filters() -> Any:
    return librosa.filters.mel(sr=16_000, n_fft=512, n_mels=80, fmin=0, fmax=8000)


def main() -> None:
    rng = np.random.default_rng(1)
    waves = [utterance(rng, samples) for samples in LENGTHS]
    arrays = {f"wave{n}": wave for n, wave in enumerate(waves)}
    arrays |= {f"features{n}": features(wave).astype(np.float32) for n, wave in enumerate(waves)}
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, mel=filters(), **arrays)


if __name__ == "__main__":
    main()
