"""SQuAD v1.1 JSON: read with care, so that a wrong file is explained before a run and not after it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadgen.contracts import InputError

_FETCH = "Fetch dev-v1.1.json of SQuAD v1.1 again, or write a file of the same structure"
_WHITESPACE = " \t\r\n\u202f"  # what the reference splits contexts at; U+202F is a narrow no-break space


@dataclass(frozen=True)
class Question:
    """One question with the context it is asked of."""

    id: str
    """Where a file has one twice, the last question's answer counts for both (see `accuracy`)."""
    text: str
    answers: tuple[str, ...]
    words: tuple[str, ...]
    """The context, split at whitespace; shared by all questions of a paragraph. One without tokens gives no sample."""


def read_squad(path: Path) -> list[Question]:
    """Every question in file order.

    Raises InputError naming the article, paragraph and question that differs
    from SQuAD v1.1 and what to do.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put dev-v1.1.json of SQuAD v1.1 there")
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:  # also UnicodeDecodeError
        raise InputError(f"{path}: not JSON ({error}). {_FETCH}") from error
    questions: list[Question] = []
    for a, article in enumerate(_get(document, "data", list, f"{path}")):
        for p, paragraph in enumerate(_get(article, "paragraphs", list, f"{path}: article {a}")):
            questions += _read_paragraph(paragraph, f"{path}: article {a}, paragraph {p}")
    if not questions:
        raise InputError(f"{path}: holds no question. {_FETCH}")
    return questions


def split_words(context: str) -> tuple[str, ...]:
    """The context's words, punctuation attached, as answers are cut from it."""
    for char in _WHITESPACE[1:]:
        context = context.replace(char, " ")
    return tuple(word for word in context.split(" ") if word)


def _read_paragraph(paragraph: Any, where: str) -> list[Question]:
    words = split_words(_get(paragraph, "context", str, where))
    questions = []
    for q, qa in enumerate(_get(paragraph, "qas", list, where)):
        name = _get(qa, "id", str, f"{where}, question {q}")
        here = f"{where}, question {name!r}"
        answers = tuple(_get(answer, "text", str, here) for answer in _get(qa, "answers", list, here))
        if not answers:
            raise InputError(f"{here}: no answer to score against (SQuAD v2 has such questions). {_FETCH}")
        questions.append(Question(name, _get(qa, "question", str, here), answers, words))
    return questions


def _get(parent: Any, key: str, kind: type, where: str) -> Any:
    """`parent[key]`, if it is there and of this kind."""
    if not isinstance(parent, dict) or key not in parent:
        found = f"keys {sorted(parent)[:6]}" if isinstance(parent, dict) else f"a {type(parent).__name__}"
        raise InputError(f"{where}: no {key!r} (found {found}). {_FETCH}")
    if not isinstance(parent[key], kind):
        found = type(parent[key]).__name__
        raise InputError(f"{where}: {key!r} is a {found}, expected {kind.__name__}. {_FETCH}")
    return parent[key]
