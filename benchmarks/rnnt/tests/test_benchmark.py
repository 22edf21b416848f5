"""The benchmark as the command line sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench_rnnt.benchmark import BENCHMARK
from loadgen.harness.cli import invoke
from loadgen.harness.conformance import Check, conformance


@pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_fetch_knows_the_official_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(BENCHMARK, ["fetch", "--check", "--data", str(tmp_path)]) == 2
    printed = capfd.readouterr()
    assert printed.out.count(": missing") == 3  # audio, manifest, weights
    assert "3 of 3 files are missing or wrong" in printed.err


def test_workers_in_processes_answer_too(mini: Path, tmp_path: Path) -> None:
    """Batches and answers of any length travel between them."""
    arguments = ["run", "--scenario", "Offline", "--mode", "accuracy", "--threads", "1", "--quiet"]
    arguments += ["--workers", "2", "--worker-kind", "process", "--data", str(mini), "--output", str(tmp_path)]
    assert invoke(BENCHMARK, arguments) == 0
