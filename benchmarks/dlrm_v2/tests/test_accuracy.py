"""Answers on the wire, and the official metric."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench_dlrm_v2.accuracy import area, score
from bench_dlrm_v2.dataset import Dataset
from bench_dlrm_v2.postprocess import decode, encode
from loadgen.contracts import Entry, InputError, Scoring
from loadgen.rules import load_round

AT = Scoring(Path())


def entries(data: Dataset, probabilities: Any) -> list[Entry]:
    """Answers to all samples, the last sample first."""
    ends = np.cumsum(data.counts)
    made = []
    for index in reversed(range(data.total_count)):
        part = probabilities[ends[index] - data.counts[index] : ends[index]]
        made.append(Entry(index, bytes(np.asarray(encode(part, np.array([index]), data).data).tobytes())))
    return made


@pytest.fixture(scope="module")
def drawn(mini_dataset: Dataset) -> Any:
    """Probabilities in steps of a hundredth, so that many are equal."""
    noise = np.random.default_rng(2).normal(0.3, 0.2, mini_dataset.pairs)
    return np.clip(np.round(noise + 0.2 * mini_dataset.labels[: mini_dataset.pairs], 2), 0, 1).astype(np.float32)


def test_the_score_is_that_of_all_pairs_at_once(mini_dataset: Dataset, drawn: Any) -> None:
    labels = mini_dataset.labels[: mini_dataset.pairs]
    found = score(iter(entries(mini_dataset, drawn)), mini_dataset, AT)
    assert found["AUC"] == pytest.approx(100 * roc_auc_score(labels, drawn), abs=1e-9)
    assert found["good"] == ((drawn > 0.5) == (labels == 1)).sum(), "a half rounds to none, as in the official script"
    assert found["accuracy"] == pytest.approx(100 * found["good"] / len(labels))
    assert (found["total"], found["queries"]) == (40_001, mini_dataset.total_count)


def test_a_part_of_the_samples_has_a_score_of_its_own(mini_dataset: Dataset, drawn: Any) -> None:
    some = [entry for entry in entries(mini_dataset, drawn) if entry.index % 5 == 1]
    chosen = np.repeat(np.arange(mini_dataset.total_count) % 5 == 1, mini_dataset.counts)
    labels = mini_dataset.labels[: mini_dataset.pairs]
    found = score(some, mini_dataset, Scoring(Path(), partial=True))
    assert found["AUC"] == pytest.approx(100 * roc_auc_score(labels[chosen], drawn[chosen]), abs=1e-9)
    assert (found["total"], found["queries"]) == (chosen.sum(), len(some))


def test_ties_count_half(mini_dataset: Dataset, drawn: Any) -> None:
    found = score(entries(mini_dataset, np.full_like(drawn, 0.25)), mini_dataset, AT)
    assert found["AUC"] == pytest.approx(50)


@pytest.mark.parametrize("share", [0.03, 0.97])
def test_the_area_is_scikit_learns_in_little_memory(share: float) -> None:
    """Day 23 has 89 million pairs: scikit-learn would take 5.5 GB."""
    rng = np.random.default_rng(4)
    labels = (rng.random(1_500_000) < share).astype(np.uint8)
    probabilities = np.clip(rng.normal(0.4, 0.1, len(labels)) + 0.1 * labels, 0, 1).astype(np.float32)
    expected = roc_auc_score(labels, probabilities)
    tracemalloc.start()
    found = area(probabilities, labels)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == pytest.approx(expected, abs=1e-12)
    assert taken < 20 * len(labels), f"{taken / len(labels):.0f} bytes a pair"


def test_the_official_line(mini_dataset: Dataset, drawn: Any) -> None:
    values = score(entries(mini_dataset, drawn), mini_dataset, AT)
    line = load_round("v4.0").model("dlrm-v2").write_accuracy(values)
    assert line.startswith(f"AUC={values['AUC']:.3f}%, accuracy=")
    assert line.endswith(f"total=40001, queries={mini_dataset.total_count}")


def test_an_answer_is_pairs_of_probability_and_label(mini_dataset: Dataset) -> None:
    indices = np.array([3, 0])
    pairs = mini_dataset.costs(indices)
    outputs = np.linspace(0, 1, pairs.sum(), dtype=np.float32)
    data, offsets, _ = encode(outputs, indices, mini_dataset)
    assert list(offsets) == [0, 8 * pairs[0], 8 * pairs.sum()]
    answer = decode(np.asarray(data).tobytes()[offsets[1] : offsets[2]])
    assert (answer[:, 0] == outputs[pairs[0] :]).all()
    assert (answer[:, 1] == mini_dataset.labels[: pairs[1]]).all()


@pytest.mark.parametrize("data", [b"", b"1234567", bytes(12)])
def test_bytes_that_are_no_pairs(data: bytes) -> None:
    with pytest.raises(ValueError, match="are not a list of"):
        decode(data)


def changed(answer: Any, column: int, value: float) -> bytes:
    pairs = decode(answer).copy()
    pairs[0, column] = value
    return pairs.tobytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-8], r"sample 155: 0 pairs|sample 155: .* are not a list"),
        (lambda data: data + bytes(8), "sample 155: 2 pairs are answered of 1"),
        (lambda data: b"x", "sample 155: 1 bytes are not a list"),
        (lambda data: changed(data, 1, 1 - decode(data)[0, 1]), "sample 155: its labels are not those of the data"),
        (lambda data: changed(data, 0, np.nan), "sample 155: the answer holds a probability outside of 0 to 1"),
        (lambda data: changed(data, 0, 1.5), "probability outside"),
    ],
)
def test_an_answer_that_cannot_be_is_named(change: Any, said: str, mini_dataset: Dataset, drawn: Any) -> None:
    answers = entries(mini_dataset, drawn)
    assert answers[0].index == 155
    answers[0] = Entry(155, change(answers[0].data))
    with pytest.raises(InputError, match=said):
        score(answers, mini_dataset, AT)
