"""The benchmark as the command line sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench_bert import assets
from bench_bert.benchmark import BENCHMARK
from loadgen.harness.cli import invoke
from loadgen.harness.conformance import Check, conformance


@pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_int8_through_the_harness(mini: Path, tmp_path: Path) -> None:
    """Another F1 than in FP32 (92.8 where measured), so it was computed otherwise, but the target is met."""
    arguments = ["run", "--mode", "accuracy", "--scenario", "Offline", "--dtype", "int8", "--threads", "1"]
    assert invoke(BENCHMARK, [*arguments, "--data", str(mini), "--output", str(tmp_path)]) == 0
    (test,) = json.loads((tmp_path / "results.json").read_text())["tests"]
    reference = BENCHMARK.profiles["mini"].reference["f1"]
    assert 0.01 < abs(test["accuracy"]["values"]["f1"] - reference) < 1
    line = (tmp_path / "Offline" / "accuracy" / "accuracy.txt").read_text()
    assert line.startswith('{"exact_match": ')


def test_the_full_profile_takes_weights_of_one_backend(tmp_path: Path) -> None:
    for name in ("data/dev-v1.1.json", "data/vocab.txt", "model/model.pb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    before = sorted(tmp_path.rglob("*"))
    assets.prepare(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before, "official files may lie where nobody can write"


@pytest.mark.parametrize("backend", BENCHMARK.backends)
def test_fetch_knows_the_files_of_each_backend(backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(BENCHMARK, ["fetch", "--check", "--backend", backend, "--data", str(tmp_path)]) == 2
    printed = capfd.readouterr()
    assert printed.out.count(": missing") == 3  # data, vocabulary, weights
    assert "3 of 3 files are missing or wrong" in printed.err
