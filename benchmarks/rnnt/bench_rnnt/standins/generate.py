"""Speech in LibriSpeech's form: FLAC files in folders of speakers and chapters, and the official manifest."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench_rnnt.features import RATE
from bench_rnnt.official import MANIFEST
from bench_rnnt.standins.speech import Voice, Wave, sentence, speak

SEED = 3
SPEAKERS, EACH = 16, 16
"""Of the miniature: 256 utterances."""
NOISE = (6.0, 20.0)
"""dB below the speech, of the miniature's voices."""
_LONG = 2
"""Utterances of more than 15 s, which are no samples."""

_AHEAD = 64  # utterances that wait to be written


class Spoken(NamedTuple):
    speaker: int
    wave: Wave
    text: str


def miniature() -> Iterator[Spoken]:
    """The miniature's utterances: voices that the training has not heard, and two utterances that are too long."""
    rng = np.random.default_rng(SEED)
    for speaker in range(SPEAKERS):
        voice = Voice.drawn(rng, *NOISE)
        for number in range(EACH):
            text = sentence(rng)
            yield Spoken(speaker, speak(text, voice, rng), text)
            if speaker < _LONG and number == 0:
                text = sentence(rng, 80, 80)
                yield Spoken(speaker, speak(text, voice, rng), text)


def write(data: Path, speech: Iterable[Spoken]) -> None:
    """Fill `data/LibriSpeech`, speaker by speaker, then write the manifest in the same order."""
    entries = []
    counts: Counter[int] = Counter()
    writing: deque[Future[None]] = deque()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for spoken in speech:
            name = _name(spoken.speaker, counts[spoken.speaker])
            counts[spoken.speaker] += 1
            writing.append(pool.submit(_write, data / "LibriSpeech" / "dev-clean" / f"{name}.flac", spoken.wave))
            entries.append(_entry(f"dev-clean-wav/{name}.wav", len(spoken.wave), spoken.text))
            if len(writing) > _AHEAD:
                writing.popleft().result()
        for future in writing:
            future.result()
    (data / MANIFEST).write_text(json.dumps(entries, indent=2) + "\n")


def _name(speaker: int, number: int) -> str:
    person, chapter = 1000 + 37 * speaker, 120_000 + 11 * speaker
    return f"{person}/{chapter}/{person}-{chapter}-{number:04}"


def _write(path: Path, wave: Wave) -> None:
    import soundfile  # not for the training, which writes no audio

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE, subtype="PCM_16")


def _entry(name: str, samples: int, text: str) -> dict[str, object]:
    """As the official manifest has it."""
    file = {
        "channels": 1,
        "sample_rate": float(RATE),
        "bitrate": 16,
        "duration": samples / RATE,
        "num_samples": samples,
        "encoding": "Signed Integer PCM",
        "silent": False,
        "fname": name,
        "speed": 1,
    }
    return {
        "files": [file],
        "original_duration": samples / RATE,
        "original_num_samples": samples,
        "transcript": text,
    }
