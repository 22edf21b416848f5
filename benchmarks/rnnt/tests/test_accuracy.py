"""The word error rate, beside a Levenshtein distance written out as the official script's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench_rnnt.accuracy import score
from bench_rnnt.dataset import Dataset
from bench_rnnt.official import ALPHABET
from bench_rnnt.postprocess import decode, encode
from bench_rnnt.standins.speech import WORDS
from loadgen.contracts import Entry, InputError, Scoring
from loadgen.rules import load_round

AT = Scoring(Path())
LINE = load_round("v4.0").model("rnnt").accuracy_line


def labels(text: str) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    return np.array([ALPHABET.index(letter) for letter in text], np.int8)


def wire(text: str) -> bytes:
    return labels(text).astype(np.int64).tobytes()


@pytest.fixture
def scored(librispeech: Callable[..., Path]) -> Callable[[Sequence[str], Sequence[str]], dict[str, float]]:
    """(spoken, heard) -> scores; the answers come in another order."""

    def run(spoken: Sequence[str], heard: Sequence[str]) -> dict[str, float]:
        dataset = Dataset(librispeech([(np.zeros(1_000, np.int16), text) for text in spoken]))
        entries = [Entry(index, wire(text)) for index, text in enumerate(heard)]
        return score(reversed(entries), dataset, AT)

    return run


def distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Words to change, to add and to leave out."""
    table = [[max(i, j) if not i * j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, left in enumerate(a, 1):
        for j, right in enumerate(b, 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (left != right))
    return table[-1][-1]


Scored = Callable[[Sequence[str], Sequence[str]], dict[str, float]]


def test_all_right_and_all_wrong(scored: Scored) -> None:
    assert scored(["one two", "it's"], ["one two", "it's"]) == {"wer": 0.0, "accuracy": 100.0}
    assert scored(["one two", "it's"], ["", ""]) == {"wer": 100.0, "accuracy": 0.0}


def test_an_empty_answer_misses_its_words_only(scored: Scored) -> None:
    assert scored(["one two", "three four"], ["one two", ""])["wer"] == 50


def test_the_rate_is_of_all_words_not_a_mean_of_utterances(scored: Scored) -> None:
    assert scored(["one", "two three four"], ["ten", "two three four"])["wer"] == 25


def test_words_too_many_count(scored: Scored) -> None:
    assert scored(["one"], ["one two three"]) == {"wer": 200.0, "accuracy": -100.0}


def test_spaces_make_no_words(scored: Scored) -> None:
    assert scored(["one two"], ["  one   two "])["wer"] == 0


def test_random_answers_score_as_the_official_script_counts(scored: Scored) -> None:
    rng = np.random.default_rng(0)
    spoken = [" ".join(rng.choice(WORDS[:6], rng.integers(1, 9))) for _ in range(60)]
    heard = [" ".join(rng.choice(WORDS[:6], rng.integers(0, 9))) for _ in range(60)]
    errors = sum(distance(s.split(), h.split()) for s, h in zip(spoken, heard, strict=True))
    rate = errors / sum(len(text.split()) for text in spoken)
    assert scored(spoken, heard) == {"wer": rate * 100, "accuracy": (1 - rate) * 100}


def test_the_official_line_has_all_digits() -> None:
    """3,305 of 44,349 words are wrong: the published score of the official model."""
    rate = 3_305 / 44_349
    line = LINE.format(wer=100 * rate, accuracy=100 * (1 - rate))
    assert line == "Word Error Rate: 7.452253714852645%, accuracy=92.54774628514735%"


def test_answers_go_over_the_wire(scored: Scored) -> None:
    texts = ["it's", "", " a z"]
    answers = encode([labels(text) for text in texts], np.arange(3), None)
    assert isinstance(answers.data, np.ndarray)
    raw, ends = answers.data.tobytes(), answers.offsets
    assert [decode(raw[ends[n] : ends[n + 1]]) for n in range(3)] == texts
    assert raw[:8] == (9).to_bytes(8, "little"), "int64 labels, as the official app answers"
    assert raw == b"".join(wire(text) for text in texts)


def test_one_empty_answer_is_an_answer() -> None:
    answers = encode([labels("")], np.arange(1), None)
    assert (len(memoryview(answers.data)), [*answers.offsets]) == (0, [0, 0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1234567", "sample 1: 7 bytes are not a list of int64 labels"),
        (np.array([3, 28]).tobytes(), "sample 1: a label is not between 0 and 27"),
        (np.array([-1]).tobytes(), "sample 1: a label is not between 0 and 27"),
    ],
)
def test_a_damaged_answer_is_named(data: bytes, message: str, librispeech: Callable[..., Path]) -> None:
    dataset = Dataset(librispeech([(np.zeros(1_000, np.int16), text) for text in ("one", "two")]))
    with pytest.raises(InputError, match=message):
        score([Entry(0, wire("one")), Entry(1, data)], dataset, AT)
