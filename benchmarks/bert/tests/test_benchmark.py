"""The benchmark as the command line sees it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench_bert.benchmark import BENCHMARK
from bench_bert.config import BertConfig, read_config
from bench_bert.dataset import Dataset
from loadgen.harness.cli import invoke


def test_every_name_can_be_imported() -> None:
    names = [BENCHMARK.dataset, BENCHMARK.postprocess, BENCHMARK.accuracy, *BENCHMARK.backends.values()]
    for dotted in names + [profile.prepare for profile in BENCHMARK.profiles.values()]:
        module, _, attribute = dotted.partition(":")
        found = importlib.import_module(module)
        assert not attribute or callable(getattr(found, attribute))


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from bench_bert.__main__ import BENCHMARK
from loadgen.harness.cli import invoke
invoke(BENCHMARK, ["--help"])
print([name for name in ("numpy", "torch", "onnx", "onnxruntime", "tensorflow") if name in sys.modules])
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n"), done.stdout[-200:]
    assert "SingleStream, Server, Offline" in done.stdout
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("backend", BENCHMARK.backends)
def test_accuracy_through_the_harness(backend: str, mini: Path, tmp_path: Path) -> None:
    arguments = ["run", "--mode", "accuracy", "--scenario", "Offline", "--backend", backend]
    arguments += ["--threads", "1", "--data", str(mini), "--output", str(tmp_path)]
    assert invoke(BENCHMARK, arguments) == 0
    (test,) = json.loads((tmp_path / "results.json").read_text())["tests"]
    reference = BENCHMARK.profiles["mini"].reference["f1"]
    assert test["accuracy"]["values"]["f1"] == pytest.approx(reference, abs=0.01)
    line = (tmp_path / "Offline" / "accuracy" / "accuracy.txt").read_text()
    assert line.startswith('{"exact_match": ')


def test_int8_through_the_harness(mini: Path, tmp_path: Path) -> None:
    """Another F1 than in FP32 (92.8 where measured), so it was computed otherwise, but the target is met."""
    arguments = ["run", "--mode", "accuracy", "--scenario", "Offline", "--dtype", "int8", "--threads", "1"]
    assert invoke(BENCHMARK, [*arguments, "--data", str(mini), "--output", str(tmp_path)]) == 0
    (test,) = json.loads((tmp_path / "results.json").read_text())["tests"]
    reference = BENCHMARK.profiles["mini"].reference["f1"]
    assert 0.01 < abs(test["accuracy"]["values"]["f1"] - reference) < 1


def test_every_scenario_is_valid_through_the_harness(mini: Path, tmp_path: Path) -> None:
    """The default durations are the session `nox -s bert`'s; here only as long as the rules allow."""
    arguments = ["run", "--mode", "performance", "--duration", "1", "--threads", "1"]
    assert invoke(BENCHMARK, [*arguments, "--data", str(mini), "--output", str(tmp_path)]) == 0
    tests = json.loads((tmp_path / "results.json").read_text())["tests"]
    assert [test["scenario"] for test in tests] == ["SingleStream", "Server", "Offline"]


def test_a_scenario_that_bert_does_not_have(capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(BENCHMARK, ["run", "--scenario", "MultiStream"]) == 2
    message = capfd.readouterr().err
    assert "bert has no scenario 'MultiStream': choose SingleStream, Server, Offline" in message


def test_the_full_profile_says_what_it_needs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--profile", "full", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert invoke(BENCHMARK, arguments) == 2
    message = capfd.readouterr().err
    records = ("3733868", "3733910", "3733896", "3939747", "3750364")
    for needed in ("dev-v1.1.json", "vocab.txt", "model.onnx", "model.pytorch", "model.pb", *records):
        assert needed in message
    assert "Traceback" not in message


def test_the_full_profile_takes_a_filled_folder(tmp_path: Path) -> None:
    prepare = importlib.import_module("bench_bert.assets").prepare
    for name in ("data/dev-v1.1.json", "data/vocab.txt", "model/model.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    prepare(tmp_path)
    assert read_config(tmp_path / "model" / "bert_config.json") == BertConfig()


def test_the_module_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench_bert", "info"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
    )
    assert "BERT-large question answering" in done.stdout


def test_a_data_set_has_as_many_samples_as_info_counts_on(mini_dataset: Dataset) -> None:
    assert mini_dataset.total_count == BENCHMARK.profiles["mini"].samples
