"""Logs of other systems: number formats, layouts and lengths are told or asked for, never guessed wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_bert import backend_pytorch
from bench_bert.accuracy import best_span, predict, score
from bench_bert.benchmark import BENCHMARK, MINI
from bench_bert.config import BertConfig, read_config, write_config
from bench_bert.dataset import Dataset
from bench_bert.log_format import DTYPES
from bench_bert.postprocess import PADDING, Logits, full_width
from bench_bert.standins.formats import write_pytorch
from bench_bert.standins.synthetic import random_tensors
from loadgen.contracts import BackendOptions, Entry, InputError, Scoring
from loadgen.harness.cli import invoke

AT = Scoring(Path())
WIDTH = 96  # tokens of the miniature's windows


@pytest.fixture(scope="module")
def everywhere(mini: Path, mini_dataset: Dataset) -> Logits:
    """What the official app logs: the trained model's logits [n, 96, 2], on padding too."""
    return computed(mini / "model", mini_dataset)


def computed(model: Path, data: Dataset) -> Logits:
    backend = backend_pytorch.Backend(BackendOptions(model, threads=1))
    backend.load()
    parts = []
    for first in range(0, data.total_count, 64):
        batch = data.gather(np.arange(first, min(first + 64, data.total_count))).padded_to(WIDTH)
        with torch.inference_mode():
            start, end = backend.model(*(torch.from_numpy(column) for column in batch.columns))
        parts.append(np.stack([start.numpy(), end.numpy()], axis=-1))
    return np.concatenate(parts)


def without_padding(logits: Logits, data: Dataset) -> Logits:
    """What we log."""
    batch = data.gather(np.arange(len(logits))).padded_to(WIDTH)
    return full_width(logits[..., 0], logits[..., 1], batch)


def entries(logits: Any, dtype: str = "float32") -> list[Entry]:
    return [Entry(index, np.ascontiguousarray(one, dtype).tobytes()) for index, one in enumerate(logits)]


def transposed(logits: Logits) -> Logits:
    return logits.transpose(0, 2, 1)


def test_a_trained_models_logits_on_padding_change_no_answer(everywhere: Logits, mini_dataset: Dataset) -> None:
    """The official app logs them, we do not. They take places among the 20 best starts and ends of a window, which
    matters only if they beat the start or end of its best span: here they stay 12 below its best token's."""
    ours = without_padding(everywhere, mini_dataset)
    for feature, theirs, mine in zip(mini_dataset.features, everywhere, ours, strict=True):
        assert best_span(feature, theirs) == best_span(feature, mine)
        length = len(feature.ids)
        if length < WIDTH:
            assert (theirs[length:].max(axis=0) < theirs[:length].max(axis=0) - 10).all()
    scores = [score(entries(logits), mini_dataset, AT) for logits in (everywhere, ours)]
    assert scores[0] == scores[1]
    assert scores[0]["f1"] == pytest.approx(MINI.reference["f1"], abs=0.01)


def test_an_untrained_models_logits_on_padding_do(mini: Path, mini_dataset: Dataset, tmp_path: Path) -> None:
    config: BertConfig = read_config(mini / "model" / "bert_config.json")
    write_config(tmp_path / "bert_config.json", config)
    write_pytorch(tmp_path / "model.pytorch", config, random_tensors(config, 1))
    theirs = computed(tmp_path, mini_dataset)
    ours = without_padding(theirs, mini_dataset)
    assert predict(entries(theirs), mini_dataset) != predict(entries(ours), mini_dataset)


def test_answers_that_end_with_their_tokens_are_filled_up(everywhere: Logits, mini_dataset: Dataset) -> None:
    whole = without_padding(everywhere, mini_dataset)
    short = [one[: len(feature.ids)] for one, feature in zip(whole, mini_dataset.features, strict=True)]
    told = Scoring(Path(), dtype="float32")  # one of 48 tokens may be 96 in float16
    assert predict(entries(short), mini_dataset, told) == predict(entries(whole), mini_dataset)
    cut = [one[:30] for one in whole]
    filled = np.full_like(whole, PADDING)
    filled[:, :30] = whole[:, :30]
    assert predict(entries(cut), mini_dataset, told) == predict(entries(filled), mini_dataset)


@pytest.mark.parametrize("layout", ["pairs", "transposed"])
@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_a_format_that_is_told(dtype: str, layout: str, everywhere: Logits, mini_dataset: Dataset) -> None:
    turned = layout == "transposed"
    log = entries(transposed(everywhere) if turned else everywhere, dtype)
    found = score(log, mini_dataset, Scoring(Path(), dtype=dtype, transposed=turned))["f1"]
    assert found == pytest.approx(MINI.reference["f1"], abs=0.2 if dtype == "float16" else 0.01)


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize(
    ("dtype", "layout", "message"),
    [
        ("float16", "pairs", "384 bytes are 48 pairs of float32 or 96 of float16"),
        ("float16", "transposed", "384 bytes are 48 pairs of float32 or 96 of float16"),
        ("float64", "pairs", "192 positions, at most 96 expected; .* of another --dtype"),
        ("float32", "transposed", "short samples have their best start or end on padding, and none if .*--transposed"),
    ],
)
def test_a_format_that_is_not_told_is_asked_for(
    dtype: str, layout: str, message: str, padding: bool, everywhere: Logits, mini_dataset: Dataset
) -> None:
    logits = everywhere if padding else without_padding(everywhere, mini_dataset)
    with pytest.raises(InputError, match=message):
        score(entries(transposed(logits) if layout == "transposed" else logits, dtype), mini_dataset, AT)


def test_an_untrained_models_log_has_no_layout_to_see(mini_dataset: Dataset) -> None:
    noise = np.random.default_rng(1).normal(size=(mini_dataset.total_count, WIDTH, 2))
    assert score(entries(noise), mini_dataset, AT)["f1"] < 20


def test_an_unknown_format_is_named(mini_dataset: Dataset) -> None:
    with pytest.raises(InputError, match="--dtype 'float8': use one of float32, float16"):
        score([], mini_dataset, Scoring(Path(), dtype="float8"))


def test_the_command_line_tells(mini: Path, tmp_path: Path, everywhere: Logits, capfd: Any) -> None:
    import json

    log = tmp_path / "mlperf_log_accuracy.json"
    rows = [
        {"seq_id": entry.index, "qsl_idx": entry.index, "data": entry.data.hex()}
        for entry in entries(transposed(everywhere), "float16")
    ]
    log.write_text(json.dumps(rows, indent=1))
    command = ["accuracy", str(log), "--data", str(mini)]
    assert invoke(BENCHMARK, command) == 2
    assert "say which it is, --dtype float32 or --dtype float16" in capfd.readouterr().err
    assert invoke(BENCHMARK, [*command, "--dtype", "float16", "--transposed"]) == 0
    log.write_text(json.dumps(rows[:200]))
    assert invoke(BENCHMARK, [*command, "--dtype", "float16", "--transposed", "--partial"]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "not a result: scored, with 200 of 598 samples answered" in said
