"""The miniature is a real test of accuracy: trained, scored in FP32, hurt by what hurts a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_llama2_70b.accuracy import score
from bench_llama2_70b.benchmark import BENCHMARK, MINI
from bench_llama2_70b.dataset import Batch, Dataset
from bench_llama2_70b.official import BOS, EOS, INDEX
from bench_llama2_70b.pytorch import model
from bench_llama2_70b.pytorch.backend import Backend
from bench_llama2_70b.standins import MAX_NEW, formats, generate
from bench_llama2_70b.standins.miniature import CONFIG, WEIGHTS, prepare, read_weights
from bench_llama2_70b.standins.train import spread_channels
from loadgen.contracts import BackendOptions, Entry, Scoring
from loadgen.harness.cli import invoke
from loadgen.rules import load_round

LIMITS = load_round("v4.0").model("llama2-70b").limits(0.99, MINI.reference)
Scores = dict[str, float]
Change = Callable[[Any], Any]


def entries(folder: Path, batch: Batch, dtype: str = "float32") -> list[Entry]:
    """Every answer, as an accuracy log holds it."""
    backend = Backend(BackendOptions(folder / "model", max_batch=64, threads=1, dtype=dtype))
    backend.load()
    answers: list[list[int]] = [[] for _ in batch.prompts]
    added = done = 0
    while done < len(answers):
        wanted = np.arange(added, min(added + backend.room(), len(answers)))
        if len(wanted):
            backend.add(wanted, Batch([batch.prompts[n] for n in wanted], batch.most[wanted]))
            added += len(wanted)
        tokens = backend.step(0.1)
        for row, request in enumerate(tokens.requests.tolist()):
            answers[request] += tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        done += int(tokens.finished.sum())
    backend.close()
    return [Entry(n, np.array(ids, np.int64).tobytes(), len(ids)) for n, ids in enumerate(answers)]


def everything(data: Dataset) -> Batch:
    return data.gather(np.arange(data.total_count))


def scored(made: list[Entry], data: Dataset) -> Scores:
    return score(made, data, Scoring(Path()))


def missed(scores: Scores) -> list[str]:
    """The metrics that are outside of their limits, at 99 %."""
    return [
        name
        for name, (low, high) in LIMITS.items()
        if not (low is None or scores[name] >= low) or not (high is None or scores[name] <= high)
    ]


@pytest.fixture(scope="module")
def fp32(mini: Path, mini_dataset: Dataset) -> list[Entry]:
    return entries(mini, everything(mini_dataset))


def with_weights(change: Callable[[str, Any], Any], mini: Path, folder: Path, data: Dataset) -> Scores:
    """Scores with every tensor changed."""
    (folder / "model").mkdir()
    for file in (mini / "model").glob("*"):
        if file.name in ("config.json", "tokenizer.model"):
            (folder / "model" / file.name).symlink_to(file)
    changed = {name: change(name, value.astype(np.float32)) for name, value in read_weights().items()}
    formats.write_weights(folder / "model" / INDEX, changed, 1)
    return scored(entries(folder, everything(data)), data)


def rounded(value: Any, bits: int, axis: int | None) -> Any:
    """To so many bits and back; one scale for all (axis None) or one a row (axis 1)."""
    if value.ndim < 2:
        return value
    scale = np.abs(value).max(axis=axis, keepdims=True) / (2 ** (bits - 1) - 1)
    return (np.round(value / scale) * scale).astype(np.float32)


def test_the_data_is_as_varied_as_promised(mini_dataset: Dataset) -> None:
    lengths = [len(mini_dataset.tokenizer.encode(text)) for text in mini_dataset.references]
    assert 15 <= np.mean(lengths) <= 40
    assert max(lengths) >= 10 * min(lengths)
    assert [one.origin for one in generate.evaluation(320)][::80] == ["cot", "flan", "niv", "t0"]
    assert all(prompt[:2].tolist() == [BOS, BOS] for prompt in mini_dataset.prompts)
    assert all(prompt[-1] == mini_dataset.tokenizer.bare_space() for prompt in mini_dataset.prompts)


def test_files_are_the_same_each_time(mini: Path, tmp_path: Path) -> None:
    prepare(tmp_path)
    made = [file.relative_to(tmp_path) for file in tmp_path.rglob("*.*") if file.is_file()]
    assert len(made) == 3
    for file in made:
        assert (tmp_path / file).read_bytes() == (mini / file).read_bytes(), file


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 2_000_000


def test_fp32_gives_the_stated_scores(fp32: list[Entry], mini_dataset: Dataset) -> None:
    found = scored(fp32, mini_dataset)
    assert {name: found[name] for name in MINI.reference} == pytest.approx(MINI.reference, abs=0.1)
    assert 60 <= found["rouge1"] <= 90
    assert missed(found) == []


def test_answers_end_with_one_end(fp32: list[Entry]) -> None:
    """TEST06's rules, on every answer."""
    for entry in fp32:
        ids = np.frombuffer(entry.data, np.int64)
        assert len(ids) == entry.n_tokens
        assert ids[0] != EOS
        assert (ids == EOS).sum() == (ids[-1] == EOS)
        assert ids[-1] == EOS or len(ids) == MAX_NEW


@pytest.mark.parametrize("dtype", ["bfloat16", "float8"])
def test_fewer_bits_meet_the_target(dtype: str, mini: Path, mini_dataset: Dataset) -> None:
    """float8: matrices, keys and values in e4m3, as on a GPU."""
    assert missed(scored(entries(mini, everything(mini_dataset), dtype), mini_dataset)) == []


def test_careful_int8_meets_the_target(mini: Path, mini_dataset: Dataset, tmp_path: Path) -> None:
    found = with_weights(lambda _, value: rounded(value, 8, 1), mini, tmp_path, mini_dataset)
    assert missed(found) == []


@pytest.mark.parametrize(("bits", "axis"), [(4, 1), (8, None)])
def test_careless_rounding_misses_the_target(
    bits: int, axis: int | None, mini: Path, mini_dataset: Dataset, tmp_path: Path
) -> None:
    """4 bits where 8 are harmless, or one scale for a whole tensor."""
    found = with_weights(lambda _, value: rounded(value, bits, axis), mini, tmp_path, mini_dataset)
    assert "rouge1" in missed(found)
    assert "rouge2" in missed(found)


def test_the_other_rotary_layout_misses_the_target(
    mini: Path, mini_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbouring channels turned, as Meta's own files want it, with weights of Hugging Face's layout."""

    def neighbours(x: Any, cosines: Any, sines: Any) -> Any:
        first, second = x[..., ::2], x[..., 1::2]
        pairs = torch.stack([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
        return pairs.flatten(-2)

    monkeypatch.setattr(model, "rotated", neighbours)
    assert len(missed(scored(entries(mini, everything(mini_dataset)), mini_dataset))) >= 3


CHANGED_PROMPTS: dict[str, Change] = {
    "one <s> dropped": lambda prompt: prompt[1:],
    "both dropped": lambda prompt: prompt[2:],
}


@pytest.mark.parametrize("change", CHANGED_PROMPTS)
def test_prompts_without_their_beginning_miss_the_target(change: str, mini: Path, mini_dataset: Dataset) -> None:
    """They go on like text that is no conversation: answers never end, so 80 of them are enough."""
    some = np.arange(0, 320, 4)
    whole = mini_dataset.gather(some)
    made = entries(mini, Batch([CHANGED_PROMPTS[change](prompt) for prompt in whole.prompts], whole.most))
    found = scored([Entry(int(n), one.data) for n, one in zip(some, made, strict=True)], mini_dataset)
    assert len(missed(found)) == 4


def test_truncated_answers_miss_the_target(fp32: list[Entry], mini_dataset: Dataset) -> None:
    cut = [Entry(one.index, one.data[: 8 * 32]) for one in fp32]
    assert set(missed(scored(cut, mini_dataset))) == {"rouge1", "rouge2", "rougeL", "tokens_per_sample"}


def test_padding_in_answers_misses_the_target(fp32: list[Entry], mini_dataset: Dataset) -> None:
    """As the reference sends it in Offline: the text is the same, but every answer has the length of the longest."""
    longest = max(len(one.data) for one in fp32)
    padded = [Entry(one.index, one.data + np.full((longest - len(one.data)) // 8, EOS).tobytes()) for one in fp32]
    found = scored(padded, mini_dataset)
    assert missed(found) == ["tokens_per_sample"]


def test_channels_are_spread_without_changing_an_answer(
    fp32: list[Entry], mini: Path, mini_dataset: Dataset, tmp_path: Path
) -> None:
    """What makes careless rounding visible is the weights' form, not what they compute."""
    again = spread_channels(read_weights(), CONFIG)
    assert any((again[name] != value).any() for name, value in read_weights().items())
    found = with_weights(lambda name, _: again[name].astype(np.float32), mini, tmp_path, mini_dataset)
    assert found == scored(fp32, mini_dataset), "powers of two round nothing"


def test_it_can_be_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from bench_llama2_70b.standins import train
    from bench_llama2_70b.standins.miniature import read_tokenizer_bytes

    monkeypatch.setattr(train, "train_tokenizer", lambda seed: read_tokenizer_bytes())  # half a minute
    few = ["--steps", "5", "--batch", "4", "--examples", "64", "--workers", "1", "--device", "cpu"]
    assert invoke(BENCHMARK, ["train-mini", "--output", str(tmp_path / "w.npz"), *few]) == 0
    assert "step 5 of 5: loss" in capfd.readouterr().out
    with np.load(tmp_path / "w.npz") as made, np.load(WEIGHTS) as committed:
        assert {name: made[name].shape for name in made} == {name: committed[name].shape for name in committed}


def test_its_tokenizer_is_trained_like_llamas() -> None:
    """Fewer sentences than for the committed one, of which it must not differ in kind."""
    from bench_llama2_70b.standins.train import train_tokenizer
    from bench_llama2_70b.tokenizer import Tokenizer

    made = Tokenizer(train_tokenizer(1, sentences=600))
    text = "Ada has 12 pens, ü."
    assert made.decode(made.encode(text)) == text, "what is unknown is spelt in bytes"
    assert made.size == CONFIG.vocab_size
