"""Exact match and F1 of SQuAD v1.1 from answers, by the rules of the official scripts.

Logits -> text follows the reference (20 best starts and ends of a window, spans of 30 tokens at most,
all windows of a question compared); text -> score follows SQuAD's evaluation, version 1.1.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from bench_bert.dataset import Dataset, Feature, Ids
from bench_bert.postprocess import PADDING, Logits, decode
from bench_bert.span_text import final_text
from loadgen.contracts import Entry, InputError, Scoring

N_BEST = 20
MAX_ANSWER_LENGTH = 30
"""In tokens. Both are the reference's."""
NO_ANSWER = "empty"
"""What the reference answers where no span is allowed: this word, not a text without words."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """`exact_match` and `f1` in percent. Raises InputError that names a sample whose answer is not its logits."""
    pairs = list(zip(predict(entries, dataset), dataset.questions, strict=True))
    exact = [max(exact_match(text, truth) for truth in question.answers) for text, question in pairs]
    f1s = [max(f1(text, truth) for truth in question.answers) for text, question in pairs]
    return {"exact_match": 100.0 * sum(exact) / len(pairs), "f1": 100.0 * sum(f1s) / len(pairs)}


def predict(entries: Iterable[Entry], dataset: Dataset) -> list[str]:
    """The answer text of every question: the best span of all its windows, or NO_ANSWER. Raises as `score`."""
    best = [(-np.inf, 0, 0, 0) for _ in dataset.questions]
    for entry in entries:
        feature = dataset.features[entry.index]
        total, start, end = best_span(feature, logits_of(entry, dataset))
        found = (total, -entry.index, start, end)  # the earlier window keeps a tie
        best[feature.question] = max(best[feature.question], found)
    return [_text(dataset, *found) for found in best]


def _text(dataset: Dataset, total: float, minus_index: int, start: int, end: int) -> str:
    if total == -np.inf:
        return NO_ANSWER
    feature = dataset.features[-minus_index]
    words = dataset.questions[feature.question].words
    return final_text(feature.pieces[start : end + 1], words[feature.words[start] : feature.words[end] + 1])


def logits_of(entry: Entry, dataset: Dataset) -> Logits:
    """[S, 2] of one answer, S the sample's tokens or more. Raises as `score`."""
    length = len(dataset.features[entry.index].ids)
    try:
        values = decode(entry.data)
    except ValueError as error:
        raise InputError(f"sample {entry.index}: {error}; the log is damaged or of another benchmark") from error
    if len(values) > dataset.max_seq_length:
        raise InputError(
            f"sample {entry.index}: {len(values)} positions, at most {dataset.max_seq_length} expected; "
            "the log is of another sequence length"
        )
    if not np.isfinite(values[:length]).all():
        raise InputError(f"sample {entry.index}: the answer holds a logit that is not finite; check the backend")
    short = max(0, length - len(values))
    return np.pad(values, ((0, short), (0, 0)), constant_values=PADDING) if short else values


def best_span(feature: Feature, logits: Logits) -> tuple[float, int, int]:
    """(sum of logits, first, last piece of the window's context) of the best allowed span.

    Only the first of the reference's n-best list counts for v1.1, so only that is looked for; the
    sum is -inf where the window allows no span. Positions of padding are no span, but they take
    their places among the N_BEST, as in the reference.
    """
    starts, ends = (_best_positions(column) - feature.context_at for column in logits.T)
    limit = len(feature.pieces)
    best = (-np.inf, 0, 0)
    for start in starts.tolist():
        if not 0 <= start < limit or not feature.is_max_context[start]:
            continue
        for end in ends.tolist():
            if not start <= end < min(limit, start + MAX_ANSWER_LENGTH):
                continue
            at = feature.context_at
            total = float(logits[start + at, 0]) + float(logits[end + at, 1])
            if total > best[0]:
                best = (total, start, end)
    return best


def _best_positions(values: Logits) -> Ids:
    """Indices of the N_BEST largest, largest first, the earlier of equal ones first."""
    return np.argsort(-values, kind="stable")[:N_BEST]


def normalized(text: str) -> str:
    """SQuAD's normal form: lower case without ASCII punctuation, articles and extra spaces."""
    bare = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(predicted: str, truth: str) -> float:
    """1.0 if both have one normal form, else 0.0."""
    return float(normalized(predicted) == normalized(truth))


def f1(predicted: str, truth: str) -> float:
    """Harmonic mean of precision and recall of the words of both normal forms, 0.0 to 1.0."""
    ours, theirs = normalized(predicted).split(), normalized(truth).split()
    common: Counter[Any] = Counter(ours) & Counter(theirs)
    same = sum(common.values())
    return 2.0 * same / (len(ours) + len(theirs)) if same else 0.0
