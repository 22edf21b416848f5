"""Golden scores: worked out by hand from SQuAD's rules, and against an implementation that is not ours."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers.data.metrics import squad_metrics as _squad_metrics

from bench_bert.accuracy import exact_match, f1, normalized, predict, score
from bench_bert.dataset import Dataset
from bench_bert.postprocess import PADDING, decode, encode, full_width
from bench_bert.span_text import final_text
from loadgen.contracts import Entry, InputError, Scoring

squad_metrics: Any = _squad_metrics  # has no types
AT = Scoring(Path())
TOLD = Scoring(Path(), dtype="float32")  # answers shorter than their sample could as well be of 16 bits

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz'.,-0123456789?"]
PIECES += [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
CONTEXT = "Zoë Smith's cat, born in the Old-Town, is 9."


@pytest.fixture
def one(squad_folder: Callable[..., Path]) -> Dataset:
    """Q0 and q1 on one short context, a window each. Every letter is a piece."""
    asked = [("who?", ["Zoë", "Zoë Smith"]), ("where?", ["the Old-Town"])]
    return Dataset(squad_folder([(CONTEXT, asked)], PIECES))


def answer(dataset: Dataset, index: int, span: str, weight: float = 5.0) -> Entry:
    """Logits that point at this text of the context (lower case, accents off, as pieces)."""
    feature = dataset.features[index]
    joined = "".join(piece.removeprefix("##") for piece in feature.pieces)
    at = feature.context_at + joined.index(span)
    logits = np.zeros((len(feature.ids), 2), np.float32)
    logits[at, 0] = logits[at + len(span) - 1, 1] = weight
    return Entry(index, logits.tobytes())


def entries(*logits: Any) -> list[Entry]:
    """Answers of the first samples."""
    return [Entry(index, np.asarray(values, np.float32).tobytes()) for index, values in enumerate(logits)]


def test_normal_form_by_hand() -> None:
    assert normalized("  The Cat's,\ta  hat — An apple! ") == "cats hat — apple"
    assert normalized("another theory") == "another theory", "articles are whole words"


def test_f1_and_exact_match_by_hand() -> None:
    assert exact_match("The red-kite.", "redkite") == 1.0
    assert f1("the red kite", "kite") == pytest.approx(2 / 3)  # precision 1/2, recall 1
    assert f1("a b b c", "b b b d") == pytest.approx(2 * 2 / (3 + 4))  # "a" is an article; b counts twice
    assert (f1("x", "y"), f1("", ""), exact_match("the", "")) == (0.0, 0.0, 1.0)


def test_text_has_the_original_case_and_accents(one: Dataset) -> None:
    answers = [answer(one, 0, "zoe"), answer(one, 1, "theold-town")]
    assert predict(answers, one) == ["Zoë", "the Old-Town"]
    assert score(answers, one, AT) == {"exact_match": 100.0, "f1": 100.0}


def test_a_part_of_a_word_is_cut_out(one: Dataset) -> None:
    answers = [answer(one, 0, "smith"), answer(one, 1, "town")]
    assert predict(answers, one) == ["Smith", "Town"]
    # q0: "smith" against "zoë smith" is 2/3. q1: "town" against "oldtown" shares no word.
    assert score(answers, one, AT) == {"exact_match": 0.0, "f1": pytest.approx(100 / 3)}


def test_the_words_are_the_answer_where_pieces_do_not_line_up() -> None:
    assert final_text(["[UNK]"], ["Ωmega!"]) == "Ωmega!"
    assert final_text(["smith"], ["Smith's"]) == "Smith"
    assert final_text(["stein", "##metz"], ["O'Steinmetz,"]) == "Steinmetz"


def test_spans_longer_than_30_pieces_are_passed_over(one: Dataset) -> None:
    context = one.features[0].context_at
    for length, expected in ((30, True), (31, False)):
        logits = np.full((len(one.features[0].ids), 2), -1.0, np.float32)
        logits[context, 0] = logits[context + length - 1, 1] = 9.0
        logits[context + 2, 1] = 2.0  # the next best end: "zoe"
        text = predict(entries(logits, logits), one, TOLD)[0]
        assert (text != "Zoë") is expected, text


def test_spans_outside_the_context_or_backwards_are_passed_over(one: Dataset) -> None:
    feature = one.features[0]
    logits = np.zeros((len(feature.ids), 2), np.float32)
    logits[0] = logits[2] = logits[-1] = 50.0  # [CLS], the question, the last [SEP]
    logits[feature.context_at + 3, 0] = logits[feature.context_at + 7, 1] = 9.0  # "smith"
    logits[feature.context_at, 1] = 12.0  # an end before the start, better with another start only
    assert predict(entries(logits, logits), one, TOLD)[0] in ("Smith", "Z")
    logits[feature.context_at, 1] = 8.0
    assert predict(entries(logits, logits), one, TOLD)[0] == "Smith"


def test_logits_on_padding_take_places_among_the_best(one: Dataset) -> None:
    """A foreign system may send what its model computed on padding: the official script ranks that too."""
    feature = one.features[0]
    length, context = len(feature.ids), feature.context_at
    logits = np.zeros((one.max_seq_length, 2), np.float32)
    logits[context + 3, 0] = logits[context + 7, 1] = 5.0  # "smith"
    for loud, expected in ((19, "Smith"), (20, "empty")):  # 20 louder positions leave no start or end to it
        logits[length : length + loud] = 9.0
        assert predict(entries(logits, logits), one)[0] == expected


def test_logits_that_are_not_finite_on_padding_are_passed_over(one: Dataset) -> None:
    logits = np.full((one.max_seq_length, 2), np.nan, np.float32)
    answers = []
    for index, span in ((0, "zoe"), (1, "theold-town")):
        logits[: len(one.features[index].ids)] = decode(answer(one, index, span).data)
        answers.append(Entry(index, logits.tobytes()))
        logits[:] = np.nan
    assert score(answers, one, AT)["exact_match"] == 100.0


def test_windows_of_one_question_are_compared(squad_folder: Callable[..., Path]) -> None:
    words = " ".join(f"{number:02d}" for number in range(30))
    sizes = {"max_seq_length": 40, "max_query_length": 8, "doc_stride": 16}
    data = Dataset(squad_folder([(words, [("a", ["07"]), ("b", ["25"])])], PIECES), **sizes)
    windows = [feature.question for feature in data.features]
    assert windows.count(0) == windows.count(1) == 3

    def logits(index: int, word: str, weight: float) -> Any:
        feature = data.features[index]
        values = np.zeros((len(feature.ids), 2), np.float32)
        for position, piece in enumerate(feature.pieces):
            if feature.words[position] == int(word):
                values[feature.context_at + position, int(piece.startswith("##"))] = weight
        return values

    first = [logits(0, "07", 5.0), logits(1, "10", 4.0), logits(2, "29", 4.5)]
    second = [logits(3, "07", 4.0), logits(4, "14", 4.0), logits(5, "25", 4.5)]
    assert predict(entries(*first, *second), data) == ["07", "25"]
    # Word 16 stands at the end of window 0 and in the middle of window 1: only there does it count.
    edge = [logits(0, "16", 9.0), logits(1, "16", 5.0), logits(2, "29", 4.0)]
    assert not data.features[0].is_max_context[-1]
    assert predict(entries(*edge, *second), data)[0] == "16"


def test_of_equal_windows_the_earlier_one_answers_in_any_order(squad_folder: Callable[..., Path]) -> None:
    words = " ".join(f"{number:02d}" for number in range(30))
    sizes = {"max_seq_length": 40, "max_query_length": 8, "doc_stride": 16}
    data = Dataset(squad_folder([(words, [("a", ["07"])])], PIECES), **sizes)
    answers = []
    for index in range(3):
        logits = np.full((len(data.features[index].ids), 2), -1.0, np.float32)
        logits[data.features[index].context_at + 13] = 5.0  # in the middle of each window
        answers.append(Entry(index, logits.tobytes()))
    first = predict(answers[:1], data)
    assert predict(answers, data) == predict(answers[::-1], data) == first
    assert predict(answers[1:], data) != first


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"123", "sample 1: 3 bytes"),
        (b"", "sample 1: 0 bytes"),
        (bytes(8 * 385), "sample 1: 385 positions, at most 384"),
        (np.full((384, 2), np.nan, np.float32).tobytes(), "sample 1: the answer holds a logit that is not finite"),
    ],
)
def test_an_answer_that_is_not_logits_is_named(data: bytes, message: str, one: Dataset) -> None:
    with pytest.raises(InputError, match=message):
        score([answer(one, 0, "zoe"), Entry(1, data)], one, AT)


def test_the_last_of_questions_with_one_id_counts_for_all(squad_folder: Callable[..., Path]) -> None:
    """The official script keeps its answers by id, and looks each question's up."""
    folder = squad_folder([(CONTEXT, [("who?", ["Zoë"]), ("where?", ["the Old-Town"])])], PIECES)
    file = folder / "data" / "dev-v1.1.json"
    file.write_text(file.read_text().replace('"q1"', '"q0"'))
    twice = Dataset(folder)
    assert score([answer(twice, 0, "zoe"), answer(twice, 1, "theold-town")], twice, AT)["exact_match"] == 50.0
    assert score([answer(twice, 0, "theold-town"), answer(twice, 1, "zoe")], twice, AT)["exact_match"] == 50.0
    assert score([answer(twice, 0, "zoe"), answer(twice, 1, "smith")], twice, AT)["exact_match"] == 0.0


def test_a_question_without_a_sample_is_answered_with_the_references_word(squad_folder: Callable[..., Path]) -> None:
    folder = squad_folder([("\u00ad", [("who?", ["Zoë"])]), (CONTEXT, [("who?", ["Zoë"])])], PIECES)
    data = Dataset(folder)
    assert predict([answer(data, 0, "zoe")], data) == ["empty", "Zoë"]
    assert score([answer(data, 0, "zoe")], data, AT)["exact_match"] == 50.0


def test_the_first_examples_alone(one: Dataset) -> None:
    """The official script divides by their number, and forgets to look at the last."""
    answers = [answer(one, 0, "zoe"), answer(one, 1, "theold-town")]
    expected = {1: 0.0, 2: 50.0, 3: 100.0, None: 100.0}
    assert {n: score(answers, one, Scoring(Path(), max_examples=n))["exact_match"] for n in expected} == expected


def test_answers_on_the_wire(one: Dataset) -> None:
    indices = np.array([0, 1])
    batch = one.gather(indices)
    shape = batch.input_ids.shape
    start, end = np.arange(np.prod(shape), dtype=np.float32).reshape(shape), np.ones(shape, np.float32)
    answers: Any = encode(full_width(start, end, batch), indices, one)
    assert answers.offsets.tolist() == [0, 3072, 6144], "384 pairs of float32"
    back = decode(answers.data.tobytes()[3072:])
    length = len(one.features[1].ids)
    assert back[:length].tolist() == [[value, 1.0] for value in start[1, :length].tolist()]
    assert (back[length:] == PADDING).all()


def _random_case(folder: Callable[..., Path], seed: int) -> tuple[Dataset, list[Any]]:
    """Contexts with case, accents and marks, some of several windows, and random logits."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)

    def text(words: int) -> str:
        letters = "abcdeÉüGHIß中9"
        made = ("".join(rng.choice(letters) for _ in range(rng.randint(1, 6))) for _ in range(words))
        return " ".join(word + rng.choice(["", "", "'s", ",", ".", "-x"]) for word in made)

    paragraphs = []
    for length in (5, 15, 30, 60):
        context = text(length)
        words = context.split(" ")
        paragraphs.append((context, [(text(3), [" ".join(words[i : i + 3])]) for i in range(3)]))
    data = Dataset(folder(paragraphs, PIECES), max_seq_length=96, max_query_length=24, doc_stride=32)
    # The whole answer: a reference system's model computes something on padding too.
    return data, [numbers.normal(size=(96, 2)).astype(np.float32) * 3 for _ in data.features]


@pytest.mark.parametrize("seed", range(8))
def test_equals_transformers(seed: int, squad_folder: Callable[..., Path], tmp_path: Path) -> None:
    data, logits = _random_case(squad_folder, seed)
    examples = [SimpleNamespace(qas_id=q.id, doc_tokens=list(q.words)) for q in data.questions]
    features, results = [], []
    for number, (feature, values) in enumerate(zip(data.features, logits, strict=True)):
        at = feature.context_at
        tokens = ["x"] * at + [*feature.pieces, "[SEP]"]
        features.append(
            SimpleNamespace(
                example_index=feature.question,
                unique_id=number,
                tokens=tokens,
                token_to_orig_map=dict(enumerate(feature.words, at)),
                token_is_max_context=dict(enumerate(feature.is_max_context, at)),
            )
        )
        results.append(
            SimpleNamespace(unique_id=number, start_logits=values[:, 0].tolist(), end_logits=values[:, 1].tolist())
        )
    files = [str(tmp_path / name) for name in ("predictions", "nbest", "null")]
    n_best, longest, lower_case, verbose, version_2, threshold = 20, 30, True, False, False, 0.0
    # The reference also removes a leading "##", which this implementation would keep.
    joined = SimpleNamespace(
        convert_tokens_to_string=lambda t: " ".join(t).replace(" ##", "").replace("##", "").strip()
    )
    theirs = squad_metrics.compute_predictions_logits(
        examples,
        features,
        results,
        n_best,
        longest,
        lower_case,
        *files,
        verbose,
        version_2,
        threshold,
        joined,
    )
    assert predict(entries(*logits), data) == list(theirs.values())
    assert json.loads(Path(files[0]).read_text()) == theirs
    texts = list(theirs.values())
    pairs = list(zip(texts, data.questions, strict=True))
    ours = score(entries(*logits), data, AT)
    for name, metric in (("f1", squad_metrics.compute_f1), ("exact_match", squad_metrics.compute_exact)):
        best = [max(metric(answer, text) for answer in question.answers) for text, question in pairs]
        assert ours[name] == pytest.approx(100 * sum(best) / len(pairs))
