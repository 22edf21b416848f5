"""The benchmark as the command line sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench_dlrm_v2 import assets
from bench_dlrm_v2.benchmark import BENCHMARK, MINI
from loadgen.harness.cli import invoke
from loadgen.harness.conformance import Check, conformance


@pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_int8_through_the_harness(mini: Path, tmp_path: Path) -> None:
    """Two workers, each with tables of its own, and samples of different sizes in a batch that pairs limit."""
    arguments = ["run", "--mode", "accuracy", "--scenario", "Offline", "--dtype", "int8", "--threads", "1"]
    arguments += ["--max-cost", "3000", "--data", str(mini), "--output", str(tmp_path)]
    assert invoke(BENCHMARK, arguments) == 0
    (test,) = json.loads((tmp_path / "results.json").read_text())["tests"]
    assert test["accuracy"]["values"]["AUC"] == pytest.approx(MINI.reference["AUC"], abs=0.1)
    line = (tmp_path / "Offline" / "accuracy" / "accuracy.txt").read_text()
    assert line.startswith("AUC=82.2")
    assert "total=40001, queries=156" in line


def test_a_missing_shard_ends_a_run_with_its_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mini"
    assert invoke(BENCHMARK, ["run", "--scenario", "Offline", "--mode", "accuracy", "--data", str(folder)]) == 0
    lost = min((folder / "model").rglob("sharded/**/*t_cat_9.weight_25_0"))
    lost.unlink()
    assert invoke(BENCHMARK, ["run", "--scenario", "Offline", "--mode", "accuracy", "--data", str(folder)]) == 2
    assert f"{lost.name} is missing" in "".join(capfd.readouterr().err.split("\n"))


def test_fetch_knows_the_official_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(BENCHMARK, ["fetch", "--check", "--data", str(tmp_path)]) == 2
    printed = capfd.readouterr()
    assert printed.out.count(": missing") == len(assets.ASSETS) == 4
    assert printed.out.count("metadata/dlrm-v2-preprocessed-dataset.md5") == 3


def test_official_files_may_lie_where_nobody_can_write(tmp_path: Path) -> None:
    for asset in assets.ASSETS:
        (tmp_path / asset.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / asset.path).touch()
    before = sorted(tmp_path.rglob("*"))
    assets.prepare(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
