"""Word error rate over all utterances: words wrong, missing or too many, as a share of the words spoken."""

from __future__ import annotations

from collections.abc import Iterable

import jiwer

from bench_rnnt.dataset import Dataset
from bench_rnnt.postprocess import decode
from loadgen.contracts import Entry, InputError, Scoring


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """`wer` and `accuracy`, which add up to 100. An empty answer misses all words of its utterance.

    Raises InputError that names a sample whose answer is no list of labels.
    """
    heard = {entry.index: _text(entry) for entry in entries}
    spoken = [dataset.utterances[index].transcript for index in heard]
    counted = jiwer.process_words(spoken, [*heard.values()])
    words = counted.hits + counted.substitutions + counted.deletions
    rate = (counted.substitutions + counted.deletions + counted.insertions) / words
    return {"wer": 100 * rate, "accuracy": 100 * (1 - rate)}  # rounded as the official script does


def _text(entry: Entry) -> str:
    try:
        return decode(entry.data)
    except ValueError as error:
        raise InputError(f"sample {entry.index}: {error}; the log is damaged or of another benchmark") from error
