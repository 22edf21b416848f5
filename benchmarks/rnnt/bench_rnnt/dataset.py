"""LibriSpeech's dev-clean: a sample is one utterance, a waveform of up to 15 s. Features are the backend's work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile

from bench_rnnt.features import RATE, joined_frames
from bench_rnnt.manifest import MAX_SECONDS, Utterance, read_manifest
from bench_rnnt.official import MANIFEST
from loadgen.contracts import I64, InputError

Wave: TypeAlias = npt.NDArray[np.int16]


class Length(NamedTuple):
    samples: int
    frames: int
    """Joined, of 30 ms."""


_MOST = int(MAX_SECONDS * RATE)
LONGEST = Length(_MOST, joined_frames(_MOST))
"""What a runtime that makes room ahead has to have room for."""


@dataclass(frozen=True)
class Batch:
    """Waveforms as they lie on the disk; full scale is 32,768."""

    waves: Sequence[Wave]
    """Of each utterance, where the dataset has it: who needs them side by side copies them there (`collect`)."""

    @cached_property
    def lengths(self) -> I64:
        """In samples."""
        return np.array([len(wave) for wave in self.waves])

    def collect(self, rows: Wave) -> None:
        """Copy into [n, longest of the batch or more]; zeros after an utterance's end."""
        for row, wave in zip(rows, self.waves, strict=True):
            row[: len(wave)] = wave
            row[len(wave) :] = 0

    @property
    def padded(self) -> Wave:
        """[n, longest of the batch], zeros after an utterance's end."""
        rows = np.empty((len(self.waves), self.lengths.max()), np.int16)
        self.collect(rows)
        return rows


class Dataset:
    """The utterances of `data/dev-clean-wav.json`, read when they are loaded (see `contracts.Dataset`)."""

    def __init__(self, folder: Path) -> None:
        """folder: the profile's, with `data/` below it. Raises InputError as `read_manifest`."""
        self.utterances = read_manifest(folder / "data" / MANIFEST)
        self._samples = np.array([utterance.samples for utterance in self.utterances])
        self._waves: dict[int, Wave] = {}

    @property
    def name(self) -> str:
        return "LibriSpeech dev-clean"

    @property
    def total_count(self) -> int:
        return len(self.utterances)

    @property
    def performance_count(self) -> int:
        """All: the official set takes 0.5 GB."""
        return len(self.utterances)

    def load(self, indices: Sequence[int]) -> None:
        """Read the files, in parallel. Raises InputError that names the sample, its file and what is wrong with it."""
        wanted = [index for index in dict.fromkeys(indices) if index not in self._waves]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            self._waves.update(zip(wanted, pool.map(self._read, wanted), strict=True))

    def _read(self, index: int) -> Wave:
        utterance = self.utterances[index]
        try:
            return read_wave(utterance)
        except ValueError as error:
            raise InputError(f"sample {index}, {utterance.file}: {error}: put the official file there") from error

    def unload(self, indices: Sequence[int]) -> None:
        for index in indices:
            self._waves.pop(index, None)

    def gather(self, indices: I64) -> Batch:
        """Raises KeyError with the number of a sample that is not loaded."""
        return Batch([self._waves[index] for index in indices.tolist()])

    def costs(self, indices: I64) -> I64:
        """Joined frames of each utterance."""
        return joined_frames(self._samples[indices])


def read_wave(utterance: Utterance) -> Wave:
    """All samples of a FLAC or WAV file. Raises ValueError in words if it is not what the manifest says."""
    try:
        with soundfile.SoundFile(utterance.file) as file:
            form = (file.samplerate, file.channels, file.subtype)
            if form != (RATE, 1, "PCM_16"):
                raise ValueError("{} Hz, {} channels, {}; expected {} Hz, 1 channel, PCM_16".format(*form, RATE))
            wave: Wave = file.read(dtype="int16")
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"cannot be read ({error})") from error
    if len(wave) != utterance.samples:
        raise ValueError(f"{len(wave):,} samples, the manifest says {utterance.samples:,}")
    return wave


def silence(count: int, samples: int) -> Batch:
    """For a backend's first batch."""
    return Batch([np.zeros(samples, np.int16)] * count)
