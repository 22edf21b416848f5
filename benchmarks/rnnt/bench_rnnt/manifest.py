"""The official manifest: which utterances there are, in which order, where they lie and what is said in them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bench_rnnt.features import SHORTEST
from bench_rnnt.official import ALPHABET
from loadgen.contracts import InputError

MAX_SECONDS = 15.0
"""Longer utterances are no samples: the rules'. 2,513 of dev-clean's 2,703 are left."""
_ADVICE = "put the official manifest there"


@dataclass(frozen=True)
class Utterance:
    file: Path
    samples: int
    transcript: str


def read_manifest(path: Path) -> list[Utterance]:
    """The utterances of up to MAX_SECONDS, in the manifest's order, which is that of the samples.

    Raises InputError that names the entry and its fault, or the first file that is missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file: {_ADVICE}")
    try:
        document: Any = json.loads(path.read_bytes())
    except ValueError as error:  # also UnicodeDecodeError
        raise InputError(f"{path}: not JSON ({error}): {_ADVICE}") from error
    if not isinstance(document, list) or not document:
        raise InputError(f"{path}: holds no list of utterances: {_ADVICE}")
    utterances = list(_utterances(path, document))
    if not utterances:
        raise InputError(f"{path}: no utterance of up to {MAX_SECONDS:g} s in it: {_ADVICE}")
    _check_files(utterances, path)
    return utterances


def _utterances(path: Path, document: Sequence[Any]) -> Iterator[Utterance]:
    for number, entry in enumerate(document):
        place = f"{path}: entry {number}"
        try:
            (name,) = [file["fname"] for file in entry["files"] if file["speed"] == 1]
            seconds, samples, text = entry["original_duration"], entry["original_num_samples"], entry["transcript"]
            wav, is_short = _wav(name), _seconds(seconds) <= MAX_SECONDS
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{place} is no utterance with one file of speed 1 ({error!r}): {_ADVICE}") from error
        if is_short:
            _check_text(text, f"{place}, {name}")
            yield Utterance(_found(path.parent, wav), _count(samples, f"{place}, {name}"), text)


def _wav(name: Any) -> PurePosixPath:
    """Raises ValueError for what is no path below a folder."""
    path = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
    if len(path.parts) < 2:
        raise ValueError(f"fname {name!r} is no path of a file")
    return path


def _seconds(value: Any) -> float:
    """Raises ValueError for what is no duration: not a number above all, which is neither short nor long."""
    seconds = float(value)
    if not 0 < seconds < math.inf:
        raise ValueError(f"original_duration {value!r} is no duration")
    return seconds


def _count(samples: Any, place: str) -> int:
    if type(samples) is not int or samples < SHORTEST:
        raise InputError(f"{place}: original_num_samples is {samples!r}, expected {SHORTEST} or more: {_ADVICE}")
    return samples


def _check_text(text: Any, place: str) -> None:
    if not isinstance(text, str) or not text.split():
        raise InputError(f"{place}: the transcript {text!r} has no word: correct it")
    strange = sorted(set(text) - set(ALPHABET))
    if strange:
        raise InputError(
            f"{place}: {''.join(strange)!r} in the transcript is not in the alphabet {ALPHABET!r}: "
            "write it out in lower case letters, as the official manifest does"
        )


def _found(data: Path, name: PurePosixPath) -> Path:
    """The WAV file that the manifest names, or the FLAC file that it was made from, where the archive puts it."""
    folder, *inner = name.with_suffix(".flac").parts
    archived = Path("LibriSpeech", folder.removesuffix("-wav"), *inner)
    places = [data / name, data / archived, data / UNPACKED / archived]
    return next((place for place in places if place.is_file()), places[0])


UNPACKED = "dev-clean"
"""The folder below `data/` that the archive is unpacked to."""


def _check_files(utterances: Sequence[Utterance], source: Path) -> None:
    missing = [utterance.file for utterance in utterances if not utterance.file.is_file()]
    if missing:
        raise InputError(
            f"{source}: {len(missing)} of {len(utterances)} files are missing, the first is {missing[0]} "
            f"(or, as FLAC, below {source.parent / 'LibriSpeech'}): put them there"
        )
