"""ROUGE of answers against the articles' own summaries, and characters of all, by the rules of the official script."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import Score

from bench_gpt_j.dataset import Dataset
from bench_gpt_j.official import DATA
from bench_gpt_j.postprocess import decode
from loadgen.contracts import Entry, InputError, Scoring
from loadgen.harness.spread import each

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_SPACED = tuple(f" {mark}" for mark in (".", "?", "!", ",", "' ", "n't", "'m", "'s", "'ve", "'re"))
"""What transformers pulled up to the word before it when the official targets were made, in this order."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SUSPECT = 30.0
"""ROUGE-1 in percent, between what GPT-J reaches on CNN/DailyMail, 43, and what is far off."""


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """Mean F of each ROUGE in percent, with stems; `gen_len`, characters of all answers, and `gen_num`, how many.

    Raises InputError that names a sample whose answer is no list of the tokenizer's ids.
    """
    sums, characters, count = dict.fromkeys(ROUGES, 0.0), 0, 0
    pairs = ((dataset.references[entry.index], _text(entry, dataset)) for entry in entries)
    for found, letters in each(_compared, pairs):
        for name in ROUGES:
            sums[name] += found[name]
        characters, count = characters + letters, count + 1
    means = {name: round(100 * total / max(1, count), 4) for name, total in sums.items()}
    if 0 < means["rouge1"] < _SUSPECT and not dataset.as_long:  # random weights are no surprise
        _suspect(means["rouge1"])
    return {**means, "gen_len": characters, "gen_num": count}


def _compared(pair: tuple[str, str]) -> tuple[dict[str, float], int]:
    """(F of each ROUGE, characters) of one answer, from what the article has and what the model says."""
    reference, text = map(in_sentences, pair)
    found: Mapping[str, Score] = RougeScorer(list(ROUGES), use_stemmer=True).score(reference, text)
    return {name: found[name].fmeasure for name in ROUGES}, len(text)


def _suspect(rouge1: float) -> None:
    print(
        f"ROUGE-1 of {rouge1:.1f} is low: are the weights the fine-tuned checkpoint "
        f"and not EleutherAI's base model, whose files look the same, and is {DATA} the reference's?",
        file=sys.stderr,
    )


def _text(entry: Entry, dataset: Dataset) -> str:
    try:
        return closed_up(dataset.tokenizer.decode(decode(entry.data).tolist()))
    except ValueError as error:
        raise InputError(f"sample {entry.index}: {error}; the log is damaged or of another benchmark") from error
    except IndexError as error:
        raise InputError(
            f"sample {entry.index}: a token is not among the tokenizer's {dataset.tokenizer.size}; "
            "the log is of another model"
        ) from error


def closed_up(text: str) -> str:
    """Without blanks before marks and short forms, as transformers decoded by default until 4.44. The official script
    decodes by default, and is older."""
    for spaced in _SPACED:
        text = text.replace(spaced, spaced.strip())
    return text


# Twin of: benchmarks/llama2_70b/bench_llama2_70b/accuracy.py::in_sentences
def in_sentences(text: str) -> str:
    """A sentence a line, as ROUGE-Lsum wants it. The official script splits by NLTK's Punkt, whose data cannot be had
    offline; no score that is judged depends on where sentences end."""
    return "\n".join(_SENTENCE_END.split(text.strip()))
