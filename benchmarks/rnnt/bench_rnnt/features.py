"""What the model hears: log-mel frames, three joined to one of 240 values every 30 ms. Constants and counts, in NumPy.

A runtime computes them itself (`pytorch/features.py`), because they are timed. All constants are those of the
official `rnnt.toml`.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

F32: TypeAlias = "npt.NDArray[np.float32]"
N = TypeVar("N")  # int, an array or a tensor

RATE = 16_000  # samples a second
HOP = 160  # samples: a frame every 10 ms
FFT = 512
WINDOW = 320  # samples, 20 ms, in the middle of the FFT's
MEL = 80
SPLICE = 3  # frames joined to one
JOINED = SPLICE * HOP  # samples
SPLICED = SPLICE * MEL
PREEMPHASIS = 0.97
DITHER = 1e-5
"""Its square is added to each power, in the place of random noise."""
LOG_FLOOR = 1e-20
DEVIATION_FLOOR = 1e-5
"""Added to each feature's standard deviation."""

SHORTEST = 1 + max(FFT // 2, JOINED)
"""Samples: the edges are mirrored over half an FFT, and a standard deviation needs two joined frames."""


def joined_frames(samples: N) -> N:
    """How many joined frames an utterance of so many samples has: one for each begun 30 ms. Also of a column."""
    count: Any = samples
    single = (count + HOP - 1) // HOP
    joined: N = (single + SPLICE - 1) // SPLICE
    return joined


def hann() -> F32:
    """[WINDOW], symmetric."""
    values = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))
    return values.astype(np.float32)


def mel_filters() -> F32:
    """[MEL, FFT // 2 + 1]: triangles of equal area, equally far apart on Slaney's scale, from 0 Hz to half the rate."""
    edges = _hertz(np.linspace(0.0, _mel(RATE / 2), MEL + 2))
    bins = np.arange(FFT // 2 + 1) * RATE / FFT
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: F32 = (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    return filters


_LINEAR = 3 / 200  # mel a hertz, up to 1,000 Hz
_KNEE = 1000.0
_LOG_STEP = math.log(6.4) / 27  # a mel above it multiplies the frequency by the 27th root of 6.4


def _mel(hertz: float) -> float:
    return hertz * _LINEAR if hertz < _KNEE else _KNEE * _LINEAR + math.log(hertz / _KNEE) / _LOG_STEP


def _hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    above = _KNEE * np.exp(_LOG_STEP * (mel - _KNEE * _LINEAR))
    return np.where(mel < _KNEE * _LINEAR, mel / _LINEAR, above)
