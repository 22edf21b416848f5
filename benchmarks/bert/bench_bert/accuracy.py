"""Exact match and F1 of SQuAD v1.1 from answers, by the rules of the official scripts.

Logits -> text follows the reference (20 best starts and ends of a window, spans of 30 tokens at most,
all windows of a question compared); text -> score follows SQuAD's evaluation, version 1.1.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench_bert.dataset import Dataset, Feature, Ids
from bench_bert.log_format import Reader
from bench_bert.postprocess import Logits
from bench_bert.span_text import final_text
from loadgen.contracts import Entry, Scoring

N_BEST = 20
MAX_ANSWER_LENGTH = 30
"""In tokens. Both are the reference's."""
NO_ANSWER = "empty"
"""What the reference answers where no span is allowed: this word, not a text without words."""

_TOLD_NOTHING = Scoring(Path())
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """`exact_match` and `f1` in percent, of all questions or the first `at.max_examples`.

    A question without an answered window is answered with NO_ANSWER; of one id the last question's answer counts.
    Raises InputError that names a sample whose answer is not its logits, or if the log may be of another format.
    """
    questions = dataset.questions[: at.max_examples]
    answers = dict(zip((q.id for q in questions), predict(entries, dataset, at), strict=False))
    # The official script counts the last of --max_examples questions, but leaves it out of both sums.
    judged = questions[:-1] if at.max_examples == len(questions) else questions
    pairs = [(answers[question.id], question.answers) for question in judged]
    exact = sum(max(exact_match(text, truth) for truth in truths) for text, truths in pairs)
    f1s = sum(max(f1(text, truth) for truth in truths) for text, truths in pairs)
    return {"exact_match": 100.0 * exact / len(questions), "f1": 100.0 * f1s / len(questions)}


def predict(entries: Iterable[Entry], dataset: Dataset, at: Scoring = _TOLD_NOTHING) -> list[str]:
    """The answer text of every question: the best span of all its windows, or NO_ANSWER. Raises as `score`."""
    best = [(-np.inf, 0, 0, 0) for _ in dataset.questions]
    reader = Reader(dataset, at)
    for entry in entries:
        feature = dataset.features[entry.index]
        total, start, end = best_span(feature, reader.logits(entry))
        found = (total, -entry.index, start, end)  # the earlier window keeps a tie
        best[feature.question] = max(best[feature.question], found)
    reader.check_layout()
    return [_text(dataset, *found) for found in best]


def _text(dataset: Dataset, total: float, minus_index: int, start: int, end: int) -> str:
    if total == -np.inf:
        return NO_ANSWER
    feature = dataset.features[-minus_index]
    words = dataset.questions[feature.question].words
    return final_text(feature.pieces[start : end + 1], words[feature.words[start] : feature.words[end] + 1])


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
