"""The benchmark as the command line sees it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench_gpt_j import assets
from bench_gpt_j.benchmark import BENCHMARK
from bench_gpt_j.config import GPTJ_6B
from bench_gpt_j.dataset import Dataset
from bench_gpt_j.memory import of_6b, parameters
from bench_gpt_j.postprocess import decode
from bench_gpt_j.pytorch.backend import Backend
from bench_gpt_j.standins import MAX_NEW, MIN_NEW
from bench_gpt_j.standins.synthetic import lengths, prepare
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.cli import invoke
from loadgen.harness.conformance import Check, conformance
from loadgen.logs import read_accuracy


@pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_answers_in_the_log_are_ids_without_the_prompt(mini: Path, mini_dataset: Dataset, tmp_path: Path) -> None:
    arguments = ["run", "--scenario", "Offline", "--mode", "accuracy", "--data", str(mini), "--threads", "1"]
    assert invoke(BENCHMARK, [*arguments, "--output", str(tmp_path)]) == 0
    entries = list(read_accuracy(tmp_path / "Offline" / "accuracy" / "mlperf_log_accuracy.json"))
    end = mini_dataset.tokenizer.end
    assert len(entries) == mini_dataset.total_count
    for entry in entries:
        ids = decode(entry.data).tolist()
        assert end not in ids[:-1]
        assert ids[-1] == end or len(ids) == MAX_NEW


def test_tokens_a_second_are_known_where_they_are_asked_for(mini: Path, tmp_path: Path) -> None:
    """As later rounds want them."""
    (tmp_path / "user.conf").write_text("gptj.Offline.use_token_latencies = 1\n")
    arguments = ["run", "--scenario", "Offline", "--mode", "performance", "--data", str(mini), "--threads", "1"]
    arguments += ["--user-conf", str(tmp_path / "user.conf"), "--duration", "0.5", "--output", str(tmp_path / "out")]
    assert invoke(BENCHMARK, arguments) == 0
    (test,) = json.loads((tmp_path / "out" / "results.json").read_text())["tests"]
    metrics = test["metrics"]
    tokens = metrics["result_tokens_per_second"] / metrics["result_samples_per_second"]
    assert MIN_NEW < tokens <= MAX_NEW


def test_another_length_rule_is_refused_by_its_name() -> None:
    with pytest.raises(InputError, match="'prompt': use one of generated, full"):
        Backend(BackendOptions(Path(), extra={"beam_length": "prompt"}))


def test_answers_longer_than_the_context_are_refused(mini: Path) -> None:
    backend = Backend(BackendOptions(mini / "model", extra={"max_new_tokens": 512}))
    with pytest.raises(InputError, match=r"config\.json: answers of 512 tokens leave no room .* context of 512"):
        backend.load()
    backend.close()


def test_the_full_profile_needs_no_weights_of_its_own(tmp_path: Path) -> None:
    for asset in assets.READ:
        (tmp_path / asset.path).parent.mkdir(exist_ok=True)
        (tmp_path / asset.path).touch()
    assets.prepare(tmp_path)


def test_memory_is_known_before_a_run() -> None:
    assert parameters(GPTJ_6B) == 6_050_882_784, "as the official state dict has"
    assert of_6b("pytorch", "bfloat16", 0) == pytest.approx(12.1, rel=0.001)
    assert of_6b("pytorch", "bfloat16", 64) == pytest.approx(83.5, rel=0.01)


def test_the_synthetic_profile_is_as_long_as_the_official_data(tmp_path: Path) -> None:
    prepare(tmp_path, count=60)
    data = Dataset(tmp_path, as_long=True)
    batch = data.gather(np.arange(60))
    prompts, answers = lengths(60, 1)
    assert [len(prompt) for prompt in batch.prompts] == np.minimum(prompts, 1919).tolist()
    assert batch.most.tolist() == answers.tolist()
    assert (data.tokenizer.end, data.tokenizer.size) == (50256, 50400)
    prompts, answers = lengths(13_368, 1)
    assert np.minimum(prompts, 1919).mean() == pytest.approx(950, abs=25)
    assert answers.mean() == pytest.approx(69, abs=2)
    assert (prompts > 1919).sum() == pytest.approx(399, abs=40), "as many as official ones are cut off"
