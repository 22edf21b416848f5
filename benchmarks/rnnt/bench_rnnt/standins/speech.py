"""Synthesised speech: each letter is a sound of 30 to 90 ms with resonances of its own, spoken by random voices.

It is no language that a person understands, but it has what makes recognition hard: voices of other pitch, size and
speed, sounds that flow into each other, sounds that are nearly alike, and noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bench_rnnt.features import RATE
from bench_rnnt.official import ALPHABET

F64: TypeAlias = "npt.NDArray[np.float64]"
Wave: TypeAlias = "npt.NDArray[np.int16]"

_FFT = 512
_HOP = 80  # samples, 5 ms: how often sounds change
_BINS = np.arange(_FFT // 2 + 1) * RATE / _FFT
_OVERLAP = np.sin(np.pi * (np.arange(_FFT) + 0.5) / _FFT)  # its squares, a hop apart, add up to a constant
_OVERLAP_GAIN = _FFT / 2 / _HOP
_VOWELS = "aeiouy"
_SEED = 19

WORDS = tuple(
    """a about after again air all also am an and another any are around as ask at away back be because been before
    big book but by call came can can't come could day did didn't do don't down each eat end even every far few find
    first food for found from get give go good great had hand hard has have he he'd help her here high him his home
    house how i if in into is it it's just keep kind know land last late learn leave left let life light like line
    little live long look made make man many me mean men might more most move much must my name near need never new
    next night no not now number of off old on once one only open or other our out over own page part people place
    play point read right run said same saw say school see seem set she should show side small so some soon sound
    spell still story such take tell than that the their them then there these they thing think this those thought
    three through time to together too took tree try turn two under until up us use very walk want was watch water way
    we well went were what when where which while white who why will with word work world would year you young
    your""".split()
)


@dataclass(frozen=True)
class Voice:
    """A speaker on a day."""

    pitch: float
    """Hz."""
    size: float
    """What resonances are multiplied by."""
    pace: float
    """What durations are divided by."""
    tilt: float
    """dB an octave, above 500 Hz."""
    noise: float
    """dB below the speech."""
    loudness: float
    """Of full scale."""

    @classmethod
    def drawn(cls, rng: np.random.Generator, quietest: float = 8.0, noisiest: float = 28.0) -> Voice:
        """A random one; the noise's range in dB below the speech."""
        return cls(
            pitch=float(rng.uniform(85, 240)),
            size=float(rng.uniform(0.86, 1.18)),
            pace=float(rng.uniform(0.8, 1.25)),
            tilt=float(rng.uniform(-5, 1)),
            noise=float(rng.uniform(quietest, noisiest)),
            loudness=float(rng.uniform(0.02, 0.1)),
        )


@dataclass(frozen=True)
class _Sound:
    resonances: F64
    """[3, 3]: Hz, width in Hz, gain in dB."""
    voiced: float
    """Share of the pulses of a voice; the rest is noise."""
    seconds: float


def _sounds() -> dict[str, _Sound]:
    """One for each letter, always the same: vowels are voiced and long, others mixed and short."""
    rng = np.random.default_rng(_SEED)
    sounds = {}
    for letter in ALPHABET.strip():
        is_vowel = letter in _VOWELS
        centres = rng.uniform([250, 900, 2300], [850, 2200, 3900]) + (0 if is_vowel else 600 * rng.random(3))
        widths = rng.uniform(80, 220, 3) * (1 if is_vowel else 2)
        gains = np.array([0, -4, -9]) + rng.uniform(-5, 5, 3)
        voiced = rng.uniform(0.85, 1) if is_vowel else rng.choice([0.05, 0.4, 0.8])
        seconds = rng.uniform(0.055, 0.08) if is_vowel else rng.uniform(0.035, 0.06)
        sounds[letter] = _Sound(np.stack([centres, widths, gains], axis=1), float(voiced), float(seconds))
    return sounds


SOUNDS = _sounds()
_PAUSE = 0.035  # seconds between words


def sentence(rng: np.random.Generator, fewest: int = 3, most: int = 8) -> str:
    """Some words; any may follow any."""
    return " ".join(rng.choice(WORDS, int(rng.integers(fewest, most + 1))).tolist())


def speak(text: str, voice: Voice, rng: np.random.Generator) -> Wave:
    """The text, spoken once: int16 samples. Two times are never alike."""
    gain, shape, voiced = _tracks(text, voice, rng)
    samples = len(gain) * _HOP
    excitation = _excitation(np.repeat(voiced, _HOP), samples, voice, rng)
    speech = _filtered(excitation, shape * gain[:, None])
    speech *= voice.loudness / (np.sqrt(np.mean(speech**2)) + 1e-12)
    noise = _filtered(rng.standard_normal(samples), np.broadcast_to(_room(rng), shape.shape))
    noise *= voice.loudness * 10 ** (-voice.noise / 20) / np.sqrt(np.mean(noise**2))
    return np.clip(np.round(32768 * (speech + noise)), -32768, 32767).astype(np.int16)


def _tracks(text: str, voice: Voice, rng: np.random.Generator) -> tuple[F64, F64, F64]:
    """Every 5 ms: loudness [n], resonances' gain [n, bins], voiced share [n]."""
    gains, shapes, shares = [], [], []
    for letter in f"  {text}  ":
        seconds = _PAUSE if letter == " " else SOUNDS[letter].seconds
        steps = max(3, round(seconds * rng.uniform(0.75, 1.3) / voice.pace * RATE / _HOP))
        gain = np.full(steps, 0.02 if letter == " " else 10 ** (rng.uniform(-4, 2) / 20))
        gain[0] *= 0.35  # a letter is heard to begin, so that double ones are two
        sound = SOUNDS.get(letter, SOUNDS["h"])
        gains.append(gain)
        shapes.append(np.broadcast_to(_resonance(sound, voice, rng), (steps, len(_BINS))))
        shares.append(np.full(steps, sound.voiced))
    return _smoothed(np.concatenate(gains)), _smoothed(np.concatenate(shapes)), _smoothed(np.concatenate(shares))


def _resonance(sound: _Sound, voice: Voice, rng: np.random.Generator) -> F64:
    """[bins], as this voice says the letter this time."""
    centres, widths, gains = sound.resonances.T
    centres = centres * voice.size * rng.normal(1, 0.03, 3)
    peaks = 10 ** (gains / 20) / (1 + ((_BINS[:, None] - centres) / widths) ** 2)
    tilt = voice.tilt * np.log2(np.maximum(_BINS, 500) / 500)
    shape: F64 = (peaks.sum(axis=1) + 0.002) * 10 ** (tilt / 20)
    return shape


def _smoothed(track: F64) -> F64:
    """Over 15 ms, as a mouth moves."""
    padded = np.concatenate([track[:1], track, track[-1:]])
    mean: F64 = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return mean


def _excitation(voiced: F64, samples: int, voice: Voice, rng: np.random.Generator) -> F64:
    """Pulses of the voice and noise, equally loud, in these shares."""
    time = np.arange(samples) / RATE
    bend = 1 + 0.12 * np.sin(2 * np.pi * (rng.uniform(0.3, 1.2) * time + rng.random()))
    turns = np.floor(np.cumsum(voice.pitch * bend / RATE))
    pulses = np.diff(turns, prepend=0) * np.sqrt(RATE / voice.pitch)
    mixed: F64 = voiced * pulses + (1 - voiced) * rng.standard_normal(samples)
    return mixed


def _filtered(x: F64, gain: npt.NDArray[np.floating]) -> F64:
    """x through filters [n, bins] that change every 5 ms."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, _FFT // 2), _FFT)[::_HOP][: len(gain)]
    pieces = np.fft.irfft(np.fft.rfft(frames * _OVERLAP) * gain) * (_OVERLAP / _OVERLAP_GAIN)
    out = np.zeros(len(gain) * _HOP + _FFT)
    for offset in range(0, _FFT, _HOP):  # pieces that do not overlap are added together
        part = pieces[:, offset : offset + _HOP]
        block = np.zeros((len(gain), _HOP))
        block[:, : part.shape[1]] = part
        out[offset : offset + block.size] += block.ravel()
    return out[_FFT // 2 :][: len(gain) * _HOP]


def _room(rng: np.random.Generator) -> F64:
    """[bins], the colour of a background noise."""
    slope = rng.uniform(-6, 0) * np.log2(np.maximum(_BINS, 100) / 100)
    colour: F64 = 10 ** (slope / 20)
    return colour
