"""ROUGE and characters: what the official script prints of them, and that it sees what is planted."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from transformers import PreTrainedTokenizerBase

from bench_gpt_j import accuracy
from bench_gpt_j.accuracy import closed_up, score
from bench_gpt_j.dataset import Dataset
from bench_gpt_j.postprocess import decode, encode
from loadgen.contracts import Entry, InputError, Scoring
from loadgen.harness import spread
from loadgen.rules import load_round

AT = Scoring(Path())


def answered(texts: list[str], data: Dataset, ends: int = 1) -> list[Entry]:
    ids = [[*data.tokenizer.encode(text), *[data.tokenizer.end] * ends] for text in texts]
    return [Entry(index, np.array(one, np.int64).tobytes(), len(one)) for index, one in enumerate(ids)]


def test_right_answers_score_100(mini_dataset: Dataset) -> None:
    found = score(answered(mini_dataset.references, mini_dataset), mini_dataset, AT)
    assert [found[name] for name in ("rouge1", "rouge2", "rougeL", "rougeLsum")] == [100.0] * 4
    assert found["gen_num"] == 320
    assert found["gen_len"] == sum(map(len, mini_dataset.references)), "characters, ends of sentences among them"


def test_scores_are_means_of_the_librarys(mini_dataset: Dataset) -> None:
    texts = [*mini_dataset.references[1:], mini_dataset.references[0]]
    found = score(answered(texts, mini_dataset), mini_dataset, AT)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    theirs = [scorer.score(a, b) for a, b in zip(mini_dataset.references, texts, strict=True)]
    for name in ("rouge1", "rouge2", "rougeL"):
        assert found[name] == pytest.approx(100 * np.mean([one[name].fmeasure for one in theirs]), abs=1e-4)
    assert 5 < found["rouge1"] < 80


def test_endings_of_words_do_not_count(mini_dataset: Dataset) -> None:
    """A stem is what counts, as the official script asks for."""
    plurals = [text.replace("boat", "boats") for text in mini_dataset.references]
    assert plurals != mini_dataset.references
    assert score(answered(plurals, mini_dataset), mini_dataset, AT)["rouge2"] == 100.0


SPACED = "She did n't pay , he 's sure . ' Why ? ' We 've said : ` No ! ' They 're . . . I 'm it 'll  ."


@pytest.mark.parametrize("text", [SPACED, SPACED.replace(" ", "  "), "Mr. Bell .\nHe said so .", " ' ' 's 't.", ""])
def test_blanks_before_marks_are_taken_out_as_transformers_did(text: str) -> None:
    """By default, when the official targets were made; its own function does it still where it is asked to."""
    assert closed_up(text) == PreTrainedTokenizerBase.clean_up_tokenization(text)


def test_characters_are_counted_without_blanks_before_marks(mini_dataset: Dataset) -> None:
    """Of answers only: the reference's side stays as it is."""
    spaced = [text.replace(".", " .") for text in mini_dataset.references]
    assert spaced != mini_dataset.references
    found = score(answered(spaced, mini_dataset), mini_dataset, AT)
    assert found == score(answered(mini_dataset.references, mini_dataset), mini_dataset, AT)


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
    line = load_round("v4.0").model("gptj").write_accuracy(found)
    assert line.startswith("{'rouge1': 100.0, 'rouge2': 100.0, 'rougeL': 100.0, 'rougeLsum': 100.0, 'gen_len': ")
    assert line.endswith("'gen_num': 320}")


def test_ends_are_no_text(mini_dataset: Dataset) -> None:
    """Also the padding that the reference app sends."""
    scores = [score(answered(mini_dataset.references, mini_dataset, ends), mini_dataset, AT) for ends in (0, 1, 5)]
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize(
    ("data", "message"), [(b"12345", "sample 7: 5 bytes"), (np.array([999_999]).tobytes(), "sample 7: a token is not")]
)
def test_a_damaged_answer_is_named(data: bytes, message: str, mini_dataset: Dataset) -> None:
    with pytest.raises(InputError, match=message):
        score([Entry(7, data)], mini_dataset, AT)


def test_a_poor_score_says_what_to_suspect(
    mini_dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    score(answered(["A tailor."] * 320, mini_dataset), mini_dataset, AT)
    assert "fine-tuned checkpoint" in capsys.readouterr().err
    score(answered(mini_dataset.references, mini_dataset), mini_dataset, AT)
    monkeypatch.setattr(mini_dataset, "as_long", True)  # weights are random then
    score(answered(["A tailor."] * 320, mini_dataset), mini_dataset, AT)
    assert capsys.readouterr().err == ""


def test_one_undoes_the_other(mini_dataset: Dataset) -> None:
    answers = encode([np.array([5, 6, 2]), np.array([7])], np.array([0, 1]), mini_dataset)
    raw, (a, b, c) = np.asarray(answers.data).tobytes(), answers.offsets
    assert [decode(raw[a:b]).tolist(), decode(raw[b:c]).tolist()] == [[5, 6, 2], [7]]
    assert np.asarray(answers.n_tokens).tolist() == [3, 1]
