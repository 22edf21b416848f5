"""Three toy benchmarks through the real command line: what the contracts are for, in the smallest form."""

from __future__ import annotations

import _thread
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.harness.cli import invoke
from loadgen.logs import read_accuracy

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(HERE)


def run(toy: str, *options: str) -> dict[str, Any]:
    """The tests of a run by "Scenario mode", and its options. It must succeed."""
    shutil.rmtree("out", ignore_errors=True)  # what other options gave
    assert invoke(importlib.import_module(toy).BENCHMARK, ["run", "--output", "out", *options]) == 0
    written = json.loads(Path("out/results.json").read_text())
    modes = {"PerformanceOnly": "performance", "AccuracyOnly": "accuracy"}
    tests = {f"{test['scenario']} {modes[test['mode']]}": test for test in written["tests"]}
    assert all(test["valid"] for test in tests.values())
    return {**tests, "options": written["options"]}


def test_ragged_answers_in_every_scenario() -> None:
    tests = run("ragged", "--max-cost", "1500")
    assert len(tests) == 4 * 2 + 1
    assert all(tests[name]["accuracy"]["values"] == {"mAP": 100.0} for name in tests if "accuracy" in name)
    lengths = {e.qsl_idx: len(e.data) for e in read_accuracy(Path("out/Server/accuracy/mlperf_log_accuracy.json"))}
    assert lengths == {index: 12 * (index % 5) for index in range(60)}, (
        "an answer may be empty, and is one all the same"
    )


def test_packed_costs_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs are 100 to 700."""
    backend = importlib.import_module("ragged").Backend
    monkeypatch.setattr(backend, "sizes", [])
    run("ragged", "--max-cost", "1500", "--scenario", "Offline", "--mode", "performance")
    assert max(backend.sizes) == 15
    mixed = run("ragged", "--max-cost", "700", "--scenario", "Server", "--mode", "performance", "--max-wait-ms", "20")
    assert mixed["options"]["max_cost"] == 700


def test_tokens_are_streamed_and_judged() -> None:
    backend = importlib.import_module("tokens").Backend
    tests = run("tokens")
    server = tests["Server performance"]
    assert server["metrics"]["result_first_token_99.00_percentile_latency_ns"] < 2e9
    assert server["metrics"]["result_time_per_output_token_99.00_percentile_ns"] < 200e6
    assert tests["Offline performance"]["metrics"]["result_tokens_per_second"] > 0
    assert backend.most == 4, "the engine's room was used, and no more"
    for scenario in ("Server", "Offline"):
        values = tests[f"{scenario} accuracy"]["accuracy"]["values"]
        assert values["rouge1"] == 100.0
        assert values["tokens_per_sample"] == 5.5
    (first, *_) = read_accuracy(Path("out/Server/accuracy/mlperf_log_accuracy.json"))
    assert first.token_data is not None
    assert np.frombuffer(first.token_data, np.int64).tolist() == [1000 + first.qsl_idx]
    assert first.token_count == len(first.data) // 8


def test_a_batch_is_compared_with_one_request_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    toy = importlib.import_module("tokens")
    assert invoke(toy.BENCHMARK, ["speed", "--samples", "16", "--pairs", "1"]) == 0
    assert "16 samples, batches of 8, 1 pairs: median" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("scenario", ["Server", "Offline"])
def test_a_failing_request_names_its_sample(
    scenario: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = importlib.import_module("tokens")
    monkeypatch.setattr(toy.Backend, "bad", 1007)
    assert invoke(toy.BENCHMARK, ["run", "--scenario", scenario, "--mode", "accuracy", "--output", "out"]) == 3
    said = capsys.readouterr()
    assert "prediction of sample index 7 failed: RequestError: the prompt is empty" in " ".join(said.out.split())
    assert "in add" in said.err
    assert "in add" in Path("out/errors.txt").read_text()


def test_ctrl_c_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = importlib.import_module("tokens")
    step, steps = toy.Backend.step, iter(range(10**9))

    def interrupted(self: Any, timeout_s: float) -> Any:
        if next(steps) == 60:
            _thread.interrupt_main()
        return step(self, timeout_s)

    monkeypatch.setattr(toy.Backend, "step", interrupted)
    assert invoke(toy.BENCHMARK, ["run", "--scenario", "Server", "--output", "out"]) == 130
    (test,) = json.loads(Path("out/results.json").read_text())["tests"]
    assert test["interrupted"]
    assert not test["valid"]
    assert 0 < test["sample_count"] < 800
    assert test["metrics"]["between_tokens_50.00_percentile_ns"] > 0


def test_more_engines_than_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    toy = importlib.import_module("tokens")
    assert invoke(toy.BENCHMARK, ["run", "--workers", "2", "--output", "out"]) == 2
    assert "continuous batching runs one engine" in capsys.readouterr().err
    assert invoke(toy.BENCHMARK, ["run", "--worker-kind", "process", "--output", "out"]) == 2
    assert "leave out --worker-kind" in capsys.readouterr().err


def test_a_wide_model_lies_on_several_devices_and_gives_large_answers() -> None:
    tests = run("wide", "--device", "cuda", "--workers", "2", "--gpus-per-worker", "2", "--worker-kind", "process")
    assert tests["options"]["device used"] == "cuda:0 + cuda:1, cuda:2 + cuda:3"
    assert tests["options"]["paint version"] == "1.0"
    sizes = {len(entry.data) for entry in read_accuracy(Path("out/Offline/accuracy/mlperf_log_accuracy.json"))}
    assert sizes == {3_145_728}
    (judged,) = tests["Offline accuracy"]["accuracy"]["judged"]
    assert judged["limits"]["FID_SCORE"] == [23.01085758, 23.95007626]
    assert Path("out/Offline/accuracy/shown.txt").is_file()


def test_both_ends_of_a_window_are_judged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    toy = importlib.import_module("wide")
    for score in (400.0, 5.0, float("nan")):
        monkeypatch.setattr(toy, "FID", score)
        assert invoke(toy.BENCHMARK, ["run", "--scenario", "Offline", "--mode", "accuracy"]) == 1
        said = " ".join(capsys.readouterr().out.split())
        assert f"FID_SCORE {score:.3f} not in 23.011 to 23.950: MISSED" in said


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines[:5] + lines[6:], "1 of 60 samples have no answer"),
        (lambda lines: [lines[0], *lines[1:2], *lines[1:]], ""),
        (lambda lines: [*lines[:2], lines[1].replace('"data" : "', '"data" : "00'), *lines[2:]], "answered twice"),
        (lambda lines: [lines[0], lines[1].replace('"qsl_idx" : ', '"qsl_idx" : 99'), *lines[2:]], "is answered, but"),
        (lambda lines: lines[:-2], "cut off"),
    ],
    ids=["missing", "same twice", "two answers", "unknown", "cut"],
)
def test_a_log_is_checked_while_it_is_read(damage: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("ragged", "--scenario", "Offline", "--mode", "accuracy")
    log = Path("out/Offline/accuracy/mlperf_log_accuracy.json")
    log.write_text("\n".join(damage(log.read_text().splitlines())) + "\n")
    toy = importlib.import_module("ragged")
    assert invoke(toy.BENCHMARK, ["accuracy", str(log)]) == (2 if message else 0)
    assert message in capsys.readouterr().err
