"""ROUGE and lengths of answers: what the official script prints of them, and that it sees what is planted."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from bench_llama2_70b import accuracy
from bench_llama2_70b.accuracy import in_sentences, score
from bench_llama2_70b.dataset import Dataset
from bench_llama2_70b.postprocess import decode, encode
from loadgen.contracts import Entry, InputError, Scoring
from loadgen.harness import spread
from loadgen.rules import load_round

AT = Scoring(Path())


def answered(texts: list[str], data: Dataset, end: bool = True) -> list[Entry]:
    ids = [[*data.tokenizer.encode(text), *([2] if end else [])] for text in texts]
    return [Entry(index, np.array(one, np.int64).tobytes(), len(one)) for index, one in enumerate(ids)]


def test_right_answers_score_100(mini_dataset: Dataset) -> None:
    found = score(answered(mini_dataset.references, mini_dataset), mini_dataset, AT)
    assert [found[name] for name in ("rouge1", "rougeL", "rougeLsum")] == [100.0] * 3
    short = sum(len(text.split()) < 2 for text in mini_dataset.references)
    assert found["rouge2"] == pytest.approx(100 * (1 - short / 320), abs=1e-3), "one word has no pair"
    assert found["gen_num"] == 320
    assert found["gen_tok_len"] == pytest.approx(320 * found["tokens_per_sample"], abs=16)
    assert found["gen_len"] == sum(map(len, mini_dataset.references))


def test_scores_are_means_of_the_librarys(mini_dataset: Dataset) -> None:
    texts = [*mini_dataset.references[1:], mini_dataset.references[0]]
    found = score(answered(texts, mini_dataset), mini_dataset, AT)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    theirs = [scorer.score(a, b) for a, b in zip(mini_dataset.references, texts, strict=True)]
    for name in ("rouge1", "rouge2", "rougeL"):
        assert found[name] == pytest.approx(100 * np.mean([one[name].fmeasure for one in theirs]), abs=1e-4)
    assert 5 < found["rouge1"] < 80


def test_many_answers_are_scored_in_several_processes_to_the_same_digits(
    mini_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = answered([*mini_dataset.references[1:], mini_dataset.references[0]], mini_dataset)
    alone = score(entries, mini_dataset, AT)
    monkeypatch.setattr(accuracy, "each", partial(spread.each, processes=2, few=20))
    monkeypatch.delattr(accuracy, "RougeScorer")  # this process has none to score with
    assert score(entries, mini_dataset, AT) == alone
    with pytest.raises(InputError, match="sample 7: 5 bytes"):
        score([*entries[:60], Entry(7, b"12345")], mini_dataset, AT)


def test_the_line_is_what_the_checker_reads(mini_dataset: Dataset) -> None:
    found = score(answered(mini_dataset.references, mini_dataset), mini_dataset, AT)
    assert all(type(value) in (int, float) for value in found.values()), "NumPy's own numbers print otherwise"
    line = load_round("v4.0").model("llama2-70b").write_accuracy(found)
    assert line.startswith("{'rouge1': 100.0, 'rouge2': ")
    assert "'gen_num': 320, 'gen_tok_len': " in line


def test_ends_and_beginnings_are_no_text(mini_dataset: Dataset) -> None:
    with_end, without = (
        score(answered(mini_dataset.references, mini_dataset, end=end), mini_dataset, AT) for end in (True, False)
    )
    assert with_end["rouge1"] == without["rouge1"]
    assert with_end["tokens_per_sample"] == pytest.approx(without["tokens_per_sample"] + 1, abs=0.11)


@pytest.mark.parametrize(
    ("data", "message"), [(b"12345", "sample 7: 5 bytes"), (np.array([999_999]).tobytes(), "sample 7: a token is not")]
)
def test_a_damaged_answer_is_named(data: bytes, message: str, mini_dataset: Dataset) -> None:
    with pytest.raises(InputError, match=message):
        score([Entry(7, data)], mini_dataset, AT)


def test_sentences() -> None:
    assert in_sentences(" One is here. Two, too!  Three? ") == "One is here.\nTwo, too!\nThree?"


def test_one_undoes_the_other(mini_dataset: Dataset) -> None:
    outputs: list[Any] = [np.array([5, 6, 2]), np.array([7])]
    answers = encode(outputs, np.array([0, 1]), mini_dataset)
    raw = np.asarray(answers.data).tobytes()
    assert [decode(raw[a:b]).tolist() for a, b in zip(answers.offsets, answers.offsets[1:])] == [[5, 6, 2], [7]]  # noqa: B905
    assert np.asarray(answers.n_tokens).tolist() == [3, 1]
