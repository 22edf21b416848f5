"""The miniature is a real test of accuracy: trained, scored in FP32, hurt by what hurts a model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_gpt_j.accuracy import score
from bench_gpt_j.benchmark import BENCHMARK, MINI
from bench_gpt_j.dataset import Batch, Dataset
from bench_gpt_j.official import INDEX
from bench_gpt_j.pytorch import model
from bench_gpt_j.pytorch.backend import Backend
from bench_gpt_j.standins import MAX_NEW, MIN_NEW
from bench_gpt_j.standins.miniature import CONFIG, WEIGHTS, read_weights
from bench_gpt_j.standins.train import spread_channels
from loadgen.contracts import BackendOptions, Entry, Scoring
from loadgen.harness.cli import invoke
from loadgen.harness.runtimes import safetensors
from loadgen.rules import load_round

LIMITS = load_round("v4.0").model("gptj").limits(0.99, MINI.reference)
Scores = dict[str, float]


def entries(folder: Path, data: Dataset, dtype: str = "float32", **changed: Any) -> list[Entry]:
    """Every answer, as an accuracy log holds it. changed: of the profile's model options."""
    options = BackendOptions(
        folder / "model", max_batch=32, threads=1, dtype=dtype, extra={**MINI.model_options, **changed}
    )
    backend = Backend(options)
    backend.load()
    answers: dict[int, Any] = {}
    added = 0
    while len(answers) < data.total_count:
        new = np.arange(added, min(added + backend.room(), data.total_count))
        if len(new):
            backend.add(new, data.gather(new))
            added += len(new)
        tokens = backend.step(0.1)
        for row, request in enumerate(tokens.requests.tolist()):
            answers[request] = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]
    backend.close()
    return [Entry(n, answers[n].tobytes(), len(answers[n])) for n in range(data.total_count)]


def scored(made: list[Entry], data: Dataset) -> Scores:
    return score(made, data, Scoring(Path()))


def missed(scores: Scores) -> list[str]:
    """The metrics that are below their limits, at 99 %."""
    return [name for name, (low, _) in LIMITS.items() if low is not None and scores[name] < low]


@pytest.fixture(scope="module")
def fp32(mini: Path, mini_dataset: Dataset) -> list[Entry]:
    return entries(mini, mini_dataset)


def with_weights(change: Callable[[str, Any], Any], mini: Path, folder: Path, data: Dataset) -> Scores:
    """Scores with every tensor changed."""
    shutil.copytree(mini / "model", folder / "model", ignore=shutil.ignore_patterns("model*"))
    changed = {name: change(name, value.astype(np.float32)) for name, value in read_weights().items()}
    safetensors.write(folder / "model" / INDEX, changed, 1)
    return scored(entries(folder, data), data)


def rounded(value: Any, bits: int) -> Any:
    """To so many bits and back, one scale a row."""
    if value.ndim < 2:
        return value
    scale = np.abs(value).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    return (np.round(value / scale) * scale).astype(np.float32)


def test_the_data_are_as_varied_as_promised(mini_dataset: Dataset) -> None:
    prompts = [len(prompt) for prompt in mini_dataset.prompts]
    answers = [len(mini_dataset.tokenizer.encode(text)) for text in mini_dataset.references]
    assert max(prompts) >= 1.9 * min(prompts), "so that a length rule and padding show"
    assert min(answers) >= MIN_NEW
    assert sum(length > MAX_NEW for length in answers) > 20, "the most binds some"


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 2_000_000


def test_fp32_gives_the_stated_scores(fp32: list[Entry], mini_dataset: Dataset) -> None:
    found = scored(fp32, mini_dataset)
    assert {name: found[name] for name in MINI.reference} == pytest.approx(MINI.reference, rel=0.002)
    assert 60 <= found["rouge1"] <= 85
    assert missed(found) == []


def test_some_answers_reach_the_most(fp32: list[Entry]) -> None:
    lengths = [entry.n_tokens or 0 for entry in fp32]
    assert min(lengths) > MIN_NEW
    assert 10 < sum(length == MAX_NEW for length in lengths) < 200


def test_any_batch_gives_the_same_answers(fp32: list[Entry], mini: Path, mini_dataset: Dataset) -> None:
    """One at a time, of the first ones."""
    backend = Backend(BackendOptions(mini / "model", max_batch=1, threads=1, extra=MINI.model_options))
    backend.load()
    for number in range(12):
        one = mini_dataset.gather(np.array([number]))
        backend.add(np.array([number]), Batch(one.prompts, one.most))
        while not len((tokens := backend.step(0.1)).requests):
            pass
        assert tokens.ids.tobytes() == fp32[number].data
    backend.close()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_fewer_bits_meet_the_target(dtype: str, mini: Path, mini_dataset: Dataset) -> None:
    assert missed(scored(entries(mini, mini_dataset, dtype), mini_dataset)) == []


def test_careful_int8_meets_the_target(mini: Path, mini_dataset: Dataset, tmp_path: Path) -> None:
    assert missed(with_weights(lambda _, value: rounded(value, 8), mini, tmp_path, mini_dataset)) == []


def test_int4_misses_the_target(mini: Path, mini_dataset: Dataset, tmp_path: Path) -> None:
    found = with_weights(lambda _, value: rounded(value, 4), mini, tmp_path, mini_dataset)
    assert {"rouge1", "rouge2", "rougeL"} <= set(missed(found))


@pytest.mark.parametrize("changed", [{"beams": 1}, {"min_new_tokens": 1}], ids=["greedy", "no least length"])
def test_another_search_misses_the_target(changed: dict[str, int], mini: Path, mini_dataset: Dataset) -> None:
    found = scored(entries(mini, mini_dataset, **changed), mini_dataset)
    assert {"rouge1", "rouge2", "rougeL"} <= set(missed(found))


def test_the_length_rule_changes_answers(fp32: list[Entry], mini: Path, mini_dataset: Dataset) -> None:
    """By the whole length, as the official targets were made: shorter answers."""
    full = entries(mini, mini_dataset, beam_length="full")
    assert sum(a.data != b.data for a, b in zip(fp32, full, strict=True)) > 5
    assert scored(full, mini_dataset)["gen_len"] < scored(fp32, mini_dataset)["gen_len"]


def test_the_other_rotary_layout_misses_the_target(
    mini: Path, mini_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves as pairs, as Llama has them, instead of neighbours."""

    def halves(x: Any, cosines: Any, sines: Any) -> Any:
        turning, rest = x[..., : CONFIG.rotary_dim], x[..., CONFIG.rotary_dim :]
        first, second = turning.chunk(2, dim=-1)
        return torch.cat([first * cosines - second * sines, second * cosines + first * sines, rest], dim=-1)

    monkeypatch.setattr(model, "rotated", halves)
    assert {"rouge1", "rouge2", "rougeL"} <= set(missed(scored(entries(mini, mini_dataset), mini_dataset)))


def test_short_answers_miss_the_target(fp32: list[Entry], mini_dataset: Dataset) -> None:
    cut = [Entry(one.index, one.data[: 8 * MIN_NEW]) for one in fp32]
    assert "gen_len" in missed(scored(cut, mini_dataset))


def test_channels_are_spread_without_changing_an_answer(
    fp32: list[Entry], mini: Path, mini_dataset: Dataset, tmp_path: Path
) -> None:
    """What makes careless rounding visible is the weights' form, not what they compute."""
    again = spread_channels(read_weights(), CONFIG)
    assert any((again[name] != value).any() for name, value in read_weights().items())
    found = with_weights(lambda name, _: again[name].astype(np.float32), mini, tmp_path, mini_dataset)
    assert found == scored(fp32, mini_dataset), "powers of two round nothing"


def test_it_can_be_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ["--steps", "4", "--batch", "4", "--device", "cpu"]
    assert invoke(BENCHMARK, ["train-mini", "--output", str(tmp_path / "w.npz"), *few]) == 0
    assert "step 4 of 4: loss" in capfd.readouterr().out
    with np.load(tmp_path / "w.npz") as made, np.load(WEIGHTS) as committed:
        assert {name: made[name].shape for name in made} == {name: committed[name].shape for name in committed}
        assert made["tokenizer.json"].tobytes() == committed["tokenizer.json"].tobytes()
