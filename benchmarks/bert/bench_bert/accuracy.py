"""Exact match and F1 of SQuAD v1.1 from answers, by the rules of the official scripts.

Logits -> text follows the reference (20 best starts and ends of a window, spans of 30 tokens at most,
all windows of a question compared); text -> score follows SQuAD's evaluation, version 1.1.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_bert.dataset import Dataset, Feature
from bench_bert.postprocess import PADDING, decode
from bench_bert.span_text import final_text
from loadgen.contracts import InputError

N_BEST = 20
MAX_ANSWER_LENGTH = 30
"""In tokens. Both are the reference's."""
NO_ANSWER = "empty"
"""What the reference answers where no span is allowed: this word, not a text without words."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score(entries: Iterable[tuple[int, bytes]], dataset: Dataset) -> dict[str, float]:
    """`exact_match` and `f1` in percent, from (sample index, answer) in any order.

    An index may come again with the same bytes. Raises InputError that names the index if one is
    missing or unknown, answered in two ways, or answered with something that is not logits.
    """
    predicted = predict(collect(entries, dataset), dataset)
    pairs = list(zip(predicted, dataset.questions, strict=True))
    exact = [max(exact_match(text, truth) for truth in question.answers) for text, question in pairs]
    f1s = [max(f1(text, truth) for truth in question.answers) for text, question in pairs]
    return {"exact_match": 100.0 * sum(exact) / len(pairs), "f1": 100.0 * sum(f1s) / len(pairs)}


def collect(entries: Iterable[tuple[int, bytes]], dataset: Dataset) -> list[npt.NDArray[np.float32]]:
    """The logits [S, 2] of every sample, in order, S its tokens or more. Raises as `score` does."""
    answers: dict[int, bytes] = {}
    for index, data in entries:
        if not 0 <= index < dataset.total_count:
            raise InputError(
                f"sample {index} is answered, but the dataset has {dataset.total_count} samples: "
                "score the log with the data it was made with"
            )
        if answers.setdefault(index, data) != data:
            raise InputError(f"sample {index} is answered twice, differently: score the log of one accuracy run")
    missing = [index for index in range(dataset.total_count) if index not in answers]
    if missing:
        question = dataset.questions[dataset.features[missing[0]].question]
        raise InputError(
            f"{len(missing)} of {dataset.total_count} samples have no answer, first sample {missing[0]} "
            f"(question {question.id!r}): run accuracy mode to its end"
        )
    return [_logits(index, answers[index], dataset) for index in range(dataset.total_count)]


def _logits(index: int, data: bytes, dataset: Dataset) -> npt.NDArray[np.float32]:
    length = len(dataset.features[index].ids)
    try:
        values = decode(data)
    except ValueError as error:
        raise InputError(f"sample {index}: {error}; the log is damaged or of another benchmark") from error
    if len(values) > dataset.max_seq_length:
        raise InputError(
            f"sample {index}: {len(values)} positions, at most {dataset.max_seq_length} expected; "
            "the log is of another sequence length"
        )
    if not np.isfinite(values[:length]).all():
        raise InputError(f"sample {index}: the answer holds a logit that is not finite; check the backend")
    short = max(0, length - len(values))
    return np.pad(values, ((0, short), (0, 0)), constant_values=PADDING) if short else values


def predict(logits: Sequence[npt.NDArray[np.float32]], dataset: Dataset) -> list[str]:
    """The answer text of every question: the best span of all its windows, or NO_ANSWER."""
    texts = [NO_ANSWER for _ in dataset.questions]
    best = [-np.inf for _ in dataset.questions]
    for feature, values in zip(dataset.features, logits, strict=True):
        total, start, end = best_span(feature, values)
        if total > best[feature.question]:  # the earlier window keeps a tie
            best[feature.question] = total
            words = dataset.questions[feature.question].words
            first, last = feature.words[start], feature.words[end]
            texts[feature.question] = final_text(feature.pieces[start : end + 1], words[first : last + 1])
    return texts


def best_span(feature: Feature, logits: npt.NDArray[np.float32]) -> tuple[float, int, int]:
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


def _best_positions(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
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
