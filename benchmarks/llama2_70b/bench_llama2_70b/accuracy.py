"""ROUGE of answers against those that OpenOrca holds, and tokens of an answer, by the rules of the official script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import Score

from bench_llama2_70b.dataset import Dataset
from bench_llama2_70b.postprocess import decode
from loadgen.contracts import Entry, InputError, Scoring
from loadgen.harness.spread import each

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """Mean F of each ROUGE in percent, with stems; `tokens_per_sample` and the sums that it follows from.

    Raises InputError that names a sample whose answer is no list of the tokenizer's ids.
    """
    sums, characters, tokens, count = dict.fromkeys(ROUGES, 0.0), 0, 0, 0
    for found, letters, length in each(_compared, _texts(entries, dataset)):
        for name in ROUGES:
            sums[name] += found[name]
        characters, tokens, count = characters + letters, tokens + length, count + 1
    return {
        **{name: round(100 * total / max(1, count), 4) for name, total in sums.items()},
        "gen_len": characters,
        "gen_num": count,
        "gen_tok_len": tokens,
        "tokens_per_sample": round(tokens / max(1, count), 1),
    }


def _texts(entries: Iterable[Entry], dataset: Dataset) -> Iterator[tuple[str, str, int]]:
    """(what OpenOrca says, what the model says, its tokens) of each sample."""
    for entry in entries:
        text, length = _text(entry, dataset)
        yield dataset.references[entry.index], text, length


def _compared(pair: tuple[str, str, int]) -> tuple[dict[str, float], int, int]:
    """(F of each ROUGE, characters, tokens) of one answer: 20 ms, so that processes share them."""
    reference, text, length = in_sentences(pair[0]), in_sentences(pair[1]), pair[2]
    found: Mapping[str, Score] = RougeScorer(list(ROUGES), use_stemmer=True).score(reference, text)
    return {name: found[name].fmeasure for name in ROUGES}, len(text), length


def _text(entry: Entry, dataset: Dataset) -> tuple[str, int]:
    """(the answer's text without special tokens, its tokens with them)."""
    try:
        ids = decode(entry.data).tolist()
        return dataset.tokenizer.decode(ids), len(ids)
    except ValueError as error:
        raise InputError(f"sample {entry.index}: {error}; the log is damaged or of another benchmark") from error
    except IndexError as error:
        raise InputError(
            f"sample {entry.index}: a token is not among the tokenizer's {dataset.tokenizer.size}; "
            "the log is of another model"
        ) from error


def in_sentences(text: str) -> str:
    """A sentence a line, as ROUGE-Lsum wants it. The official script splits by NLTK's Punkt, whose data cannot be had
    offline; no score that is judged depends on where sentences end."""
    return "\n".join(_SENTENCE_END.split(text.strip()))
