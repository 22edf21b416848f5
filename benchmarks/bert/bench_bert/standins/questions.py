"""Generated SQuAD v1.1 data as large as the real development set: as many questions, windows and tokens.

It means nothing: words are syllables, and answers stand anywhere. But it costs what the real set costs,
because the cost of a sample follows from its number of tokens. Everything follows from a seed.
"""

from __future__ import annotations

import json
import random
from itertools import accumulate, pairwise, product
from math import exp
from pathlib import Path
from statistics import NormalDist

from loadgen.harness.files import whole_file

ARTICLES, PARAGRAPHS, QUESTIONS = 48, 2067, 10570  # those of dev-v1.1.json
VOCABULARY = 30522  # lines of the official vocab.txt
SEED = 1

# Tokens of contexts are distributed log-normally. Median and spread are such that with SEED 10,570 questions
# become 10,833 windows of 177 tokens on average, 46 % of 384, as in the real set.
CONTEXT_LOGARITHM = NormalDist(4.97, 0.461)
QUESTION_TOKENS = NormalDist(12.0, 3.5)

_ENDINGS = ("st", "ng", "rn", "lk")  # second pieces: a word is consonant, vowel, ..., and so has none of them
_FOLLOWERS = (*_ENDINGS, *".,", *[""] * 12)


def write(folder: Path) -> None:
    """`vocab.txt` and `dev-v1.1.json` in a folder that is there, byte for byte the same each time."""
    with whole_file(folder / "vocab.txt") as part:
        part.write_text("\n".join(vocabulary()) + "\n")
    with whole_file(folder / "dev-v1.1.json") as part:
        part.write_text(json.dumps(squad(random.Random(SEED))) + "\n")


def vocabulary() -> list[str]:
    """The lines of `vocab.txt`, the special pieces on their official ones."""
    marks = _marks()
    return [*marks, *_words(VOCABULARY - len(marks))]


def _marks() -> list[str]:
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    unused = (f"[unused{number}]" for number in range(999))
    first = [special.get(line) or next(unused) for line in range(999)]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    return [*first, *".,?", *letters, *(f"##{part}" for part in (*letters, *_ENDINGS))]


def _words(count: int) -> list[str]:
    """Words of two syllables first, then of three from all over the alphabet."""
    syllables = ["".join(letters) for letters in product("bdfghjklmnprstvz", "aeiou")]
    short = ["".join(pair) for pair in product(syllables, repeat=2)]
    long = ["".join(triple) for triple in product(syllables, repeat=3)]
    step = len(long) // (count - len(short))
    return (short + long[::step])[:count]


def squad(rng: random.Random) -> dict[str, object]:
    """The document, in as many articles as the real one."""
    text = _Text(rng)
    lengths = [round(exp(value)) for value in _spread(CONTEXT_LOGARITHM, PARAGRAPHS, rng)]
    questions = iter([max(4, round(value)) for value in _spread(QUESTION_TOKENS, QUESTIONS, rng)])
    paragraphs = []
    for number, tokens in enumerate(lengths):
        words = text.context(tokens)
        count = QUESTIONS // PARAGRAPHS + (number < QUESTIONS % PARAGRAPHS)  # 5 or 6
        qas = [_asked(f"synthetic-{number}-{q}", text.question(next(questions)), words, rng) for q in range(count)]
        paragraphs.append({"context": " ".join(words), "qas": qas})
    cuts = [PARAGRAPHS * article // ARTICLES for article in range(ARTICLES + 1)]
    parts = [paragraphs[start:end] for start, end in pairwise(cuts)]
    return {"version": "1.1", "data": [{"title": f"{n}", "paragraphs": part} for n, part in enumerate(parts)]}


def _spread(distribution: NormalDist, count: int, rng: random.Random) -> list[float]:
    """Values at even steps of probability, shuffled: the distribution itself, without a draw's luck."""
    values = [distribution.inv_cdf((step + 0.5) / count) for step in range(count)]
    rng.shuffle(values)
    return values


def _asked(name: str, question: str, words: list[str], rng: random.Random) -> dict[str, object]:
    return {"id": name, "question": question, "answers": [_answer(words, rng) for _ in range(3)]}


def _answer(words: list[str], rng: random.Random) -> dict[str, object]:
    """One to three words from anywhere in the context."""
    first = rng.randrange(len(words))
    text = " ".join(words[first : first + rng.randint(1, 3)]).rstrip(".,")
    return {"text": text, "answer_start": sum(len(word) + 1 for word in words[:first])}


class _Text:
    """Words by their rank as often as in a language (Zipf), in sentences of a wanted number of tokens."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.words = _words(VOCABULARY - len(_marks()))
        self.weights = list(accumulate(1 / (rank + 3) for rank in range(len(self.words))))
        rng.shuffle(self.words)  # which words are frequent says nothing about their ids

    def _draw(self, count: int) -> list[str]:
        return self.rng.choices(self.words, cum_weights=self.weights, k=count)

    def question(self, tokens: int) -> str:
        return " ".join(self._draw(tokens - 1)) + "?"

    def context(self, tokens: int) -> list[str]:
        """Words with what follows them; one in three is two tokens, by a mark or an ending."""
        words: list[str] = []
        left = tokens - 1  # for the last full stop
        for word in self._draw(left):
            follower = self.rng.choice(_FOLLOWERS) if left > 1 else ""
            words.append(word + follower)
            left -= 2 if follower else 1
            if not left:
                break
        words[-1] += "."
        return words
