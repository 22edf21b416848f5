"""Windows of contexts: by hand, and against the feature building of an implementation that is not ours."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from transformers.data.processors import squad

from bench_bert.config import FILE
from bench_bert.dataset import Dataset, best_windows, window_spans
from bench_bert.squad import split_words
from loadgen.contracts import InputError

their_squad: Any = squad  # has no types
TheirTokenizer: Any = transformers.BertTokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh?.", *(f"##{c}" for c in "abcdefgh")]


def test_windows_by_hand() -> None:
    assert window_spans(10, 20, 4) == [(0, 10)]
    assert window_spans(20, 20, 4) == [(0, 20)]
    assert window_spans(23, 10, 4) == [(0, 10), (4, 14), (8, 18), (12, 22), (16, 23)]
    assert window_spans(5, 2, 4) == [(0, 2), (2, 4), (4, 5)], "a stride never skips tokens"


def test_best_window_by_hand() -> None:
    # Windows 0-9 and 6-15. Token 7 has 2 to its right in the first and 1 to its left in the second;
    # token 8 has 1 in the first, 2 in the second. Of equal windows the first is taken (7.5 is no token).
    assert best_windows(16, [(0, 10), (6, 16)]).tolist() == [0] * 8 + [1] * 8
    # Token 4: the windows 0-6 and 2-4 show 2 and 0 on the poorer side.
    assert best_windows(7, [(0, 7), (2, 5)]).tolist() == [0] * 7
    # Token 3 ends both windows; the longer one wins, 0.04 against 0.03.
    assert best_windows(4, [(1, 4), (0, 4)]).tolist() == [1, 1, 1, 1]


def test_words_split_at_the_reference_whitespace() -> None:
    assert split_words(" a\tb\r\nc\u202fd\u00a0e  f ") == ("a", "b", "c", "d\u00a0e", "f")


def test_one_window_by_hand(squad_folder: Callable[..., Path]) -> None:
    data = Dataset(squad_folder([("Ab c.", [("a b?", ["c"])])], PIECES))
    assert (data.total_count, data.performance_count, data.costs(np.array([0])).tolist()) == (1, 1, [10])
    feature = data.features[0]
    assert feature.pieces == ("a", "##b", "c", ".")
    assert feature.words == (0, 0, 1, 1)
    assert all(feature.is_max_context)
    # [CLS] a b ? [SEP] a ##b c . [SEP]
    assert feature.ids.tolist() == [2, 5, 6, 13, 3, 5, 16, 7, 14, 3]
    assert feature.context_at == 5


def test_gather_pads_to_the_longest(squad_folder: Callable[..., Path]) -> None:
    data = Dataset(squad_folder([("a", [("b", ["a"])]), ("a b c", [("d", ["a"])])], PIECES))
    batch = data.gather(np.array([1, 0]))
    assert batch.input_ids.tolist() == [[2, 8, 3, 5, 6, 7, 3], [2, 6, 3, 5, 3, 0, 0]]
    assert batch.input_mask.tolist() == [[1] * 7, [1] * 5 + [0] * 2]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0]]
    assert {a.dtype for a in (batch.input_ids, batch.input_mask, batch.segment_ids)} == {np.dtype(np.int64)}
    wide = batch.padded_to(384)
    assert wide.input_ids.shape == (2, 384)
    assert wide.input_mask.sum() == 12
    with pytest.raises(InputError, match="takes 6 tokens, a sample has 7"):
        batch.padded_to(6)


def _hard_paragraphs() -> list[Any]:
    rng = random.Random(11)
    marks = ["", "", ",", ".", "!", " —", "'s"]

    def text(words: int) -> str:
        made = ("".join(rng.choice("abcdéFGh中") for _ in range(rng.randint(1, 7))) for _ in range(words))
        return " ".join(word + rng.choice(marks) for word in made)

    lengths = [3, 20, 50, 90, 150, 240]
    return [(text(n), [(text(rng.choice([2, 6, 40])), ["a"]) for _ in range(4)]) for n in lengths]


def test_equals_transformers_features(squad_folder: Callable[..., Path]) -> None:
    folder = squad_folder(_hard_paragraphs(), PIECES)
    sizes = {"max_seq_length": 96, "max_query_length": 24, "doc_stride": 32}
    ours = Dataset(folder, **sizes)
    examples = their_squad.SquadV1Processor().get_dev_examples(str(folder / "data"), "dev-v1.1.json")
    theirs = their_squad.squad_convert_examples_to_features(
        examples, TheirTokenizer(str(folder / "data" / "vocab.txt")), **sizes, is_training=False, tqdm_enabled=False
    )
    assert len(theirs) == ours.total_count > 2 * len(examples), "long contexts make several windows"
    for feature, other in zip(ours.features, theirs, strict=True):
        at, length = feature.context_at, len(feature.ids)
        assert feature.ids.tolist() == other.input_ids[:length]
        assert sum(other.attention_mask) == length
        assert other.token_type_ids == [0] * at + [1] * (length - at) + [0] * (96 - length)
        assert dict(enumerate(feature.words, at)) == other.token_to_orig_map
        assert dict(enumerate(feature.is_max_context, at)) == other.token_is_max_context
        assert feature.question == other.example_index


def test_a_context_without_tokens_gives_no_sample(squad_folder: Callable[..., Path]) -> None:
    """As officially, so that every later sample keeps its index."""
    nothing = [("\u00ad\u00ad \u200b", [("b", ["a"])]), ("", [("b", ["a"]), ("c", ["a"])]), (" \u00ad", [("b", ["a"])])]
    data = Dataset(squad_folder([*nothing[:2], ("a b", [("c?", ["a"])]), nothing[2], ("c", [("d", ["c"])])], PIECES))
    assert len(data.questions) == 6
    assert [feature.question for feature in data.features] == [3, 5]
    assert [feature.pieces for feature in data.features] == [("a", "b"), ("c",)]


def test_a_dataset_without_a_token_is_explained(squad_folder: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"dev-v1\.1\.json: no context has a token"):
        Dataset(squad_folder([(" \u00ad", [("b", ["a"])])], PIECES))


def test_a_special_piece_in_a_text_is_itself(squad_folder: Callable[..., Path]) -> None:
    data = Dataset(squad_folder([("a[SEP] [MASK]b [sep]", [("c [CLS]?", ["a"])])], PIECES))
    assert data.features[0].pieces == ("a", "[SEP]", "[MASK]", "b", "[UNK]", "[UNK]", "[UNK]")
    # [CLS] c [CLS] ? [SEP] a [SEP] [MASK] b, then "[", "sep" and "]", which PIECES lacks
    assert data.features[0].ids.tolist() == [2, 7, 2, 13, 3, 5, 3, 4, 6, 1, 1, 1, 3]


def test_a_question_id_may_come_again(squad_folder: Callable[..., Path]) -> None:
    folder = squad_folder([("a b", [("c", ["a"]), ("d", ["b"])])], PIECES)
    file = folder / "data" / "dev-v1.1.json"
    file.write_text(file.read_text().replace('"q1"', '"q0"'))
    assert [question.id for question in Dataset(folder).questions] == ["q0", "q0"]


QA = {"id": "x", "question": "b", "answers": [{"text": "a"}]}
GOOD = {"data": [{"paragraphs": [{"context": "a", "qas": [QA]}]}]}


def _paragraphs(document: Any) -> Any:
    return document["data"][0]["paragraphs"]


def _broken(change: Callable[[Any], None]) -> bytes:
    document = json.loads(json.dumps(GOOD))
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1, 2]", "no 'data' .found a list"),
        (b'{"rows": []}', r"no 'data' .found keys \['rows'\]"),
        (b'{"data": {}}', "'data' is a dict, expected list"),
        (b'{"data": []}', "holds no question"),
        (_broken(lambda d: d["data"].append({})), "article 1: no 'paragraphs'"),
        (_broken(lambda d: _paragraphs(d).append({"qas": []})), "article 0, paragraph 1: no 'context'"),
        (_broken(lambda d: _paragraphs(d)[0]["qas"][0].pop("id")), "question 0: no 'id'"),
        (_broken(lambda d: _paragraphs(d)[0]["qas"][0].pop("question")), "question 'x': no 'question'"),
        (_broken(lambda d: _paragraphs(d)[0]["qas"][0].update(answers=[])), "question 'x': no answer"),
    ],
)
def test_a_wrong_dataset_is_explained(content: bytes, message: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "vocab.txt").write_text("\n".join(PIECES))
    (data / "dev-v1.1.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        Dataset(tmp_path)
    assert str(data / "dev-v1.1.json") in str(caught.value)


def test_a_missing_dataset_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dev-v1\.1\.json: no such file. Put"):
        Dataset(tmp_path)


def test_lengths_that_skip_tokens_are_refused(squad_folder: Callable[..., Path]) -> None:
    folder = squad_folder([("a", [("b", ["a"])])], PIECES)
    with pytest.raises(InputError, match="doc_stride 128 must be between 1 and the 61"):
        Dataset(folder, max_seq_length=128)


def test_a_vocabulary_of_another_length_than_the_models_is_named(squad_folder: Callable[..., Path]) -> None:
    folder = squad_folder([("a", [("b", ["a"])])], PIECES)
    (folder / "data" / "vocab.txt").write_text("\n".join(PIECES[:-3]))
    with pytest.raises(InputError, match=f"vocab.txt: {len(PIECES) - 3} pieces, but the model knows {len(PIECES)}"):
        Dataset(folder)
    (folder / "model" / FILE).unlink()
    with pytest.raises(InputError, match="but the model knows 30522"):
        Dataset(folder)
