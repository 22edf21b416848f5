"""Any round's rules, as a user asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke

Make = Callable[..., Benchmark]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_each_round_whose_rules_have_the_model_can_be_run(
    benchmark_of: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--mode", "accuracy", "--quiet", "--output", "out", "--round"]
    assert invoke(benchmark_of(), [*options, "v3.1", "--scenario", "Server"]) == 0
    detail = Path("out/Server/accuracy/mlperf_log_detail.txt").read_text()
    assert '"effective_qsl_rng_seed", "value": 148687905518835231' in detail
    assert invoke(benchmark_of(), ["--mode", "performance", "--output", "late", "--round", "v5.0"]) == 0
    assert [folder.name for folder in sorted(Path("late").iterdir()) if folder.is_dir()] == ["Offline", "SingleStream"]
    assert invoke(benchmark_of(), [*options, "v5.0", "--scenario", "Server"]) == 2
    assert "has no scenario 'Server': choose SingleStream, Offline" in capsys.readouterr().err
    assert invoke(replace(benchmark_of(), model="gptj"), [*options, "v3.0"]) == 2
    assert "round v3.0 has no model 'gptj' (it came with v3.1); it has resnet50" in capsys.readouterr().err
    assert invoke(benchmark_of(), [*options, "v9"]) == 2
    assert "no rules for round 'v9'; there are v0.5, v0.7" in capsys.readouterr().err


def test_a_scenario_that_no_round_has_is_the_benchmarks_own(
    benchmark_of: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Llama 2's SingleStream, which its benchmark adds to what the rules ask for."""
    added = replace(benchmark_of(), model="llama2-70b")
    assert invoke(added, ["info", "--scenario", "SingleStream"]) == 0
    assert "SingleStream" in capsys.readouterr().out


def test_info_lists_the_compliance_tests(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(benchmark_of(), ["info", "--round", "v3.1"]) == 0
    assert "compliance tests of v3.1: TEST01, TEST05\n" in capsys.readouterr().out
    assert invoke(replace(benchmark_of(), model="gptj"), ["info"]) == 0
    assert "compliance tests of v4.0: none\n" in capsys.readouterr().out
