"""The search for the highest rate: bounded, right where the truth is known, confirmed by a full test."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import early_stopping
from loadgen.generation import expected_queries
from loadgen.harness import peak
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.plan import Layered
from loadgen.rules import load_round
from loadgen.settings import Scenario, TestSettings, effective


@given(truth=st.floats(1, 1e5), factor=st.floats(1 / 100, 100))
def test_it_finds_what_holds_within_three_percent(truth: float, factor: float) -> None:
    tried: list[float] = []
    found = peak.search(truth * factor, lambda rate: tried.append(rate) or rate <= truth)
    assert len(tried) <= peak.STEPS
    assert found is not None
    assert found <= truth
    assert found >= truth / (1 + peak.PRECISION)


def test_nothing_holds() -> None:
    tried: list[float] = []
    assert peak.search(8.0, lambda rate: bool(tried.append(rate)), steps=4) is None
    assert tried == [8, 4, 2, 1]


def test_it_ends_where_everything_holds() -> None:
    assert peak.search(1.0, lambda rate: True) == 2.0 ** (peak.STEPS - 1)


def test_a_try_is_short_and_yet_long_enough_to_be_judged() -> None:
    """By the rules of a model each of whose 24,576 samples is to come equally often, in 600 s or more."""
    settings = load_round("v4.0").settings("llama2-70b", Scenario.Server, TestSettings(scenario=Scenario.Server))
    queries = expected_queries(effective(peak.server_settings(settings, 12.0), 24_576, 24_576), 24_576)
    assert early_stopping.min_under(1, 0.99) + 1 < queries < 1000


def test_a_try_tells_what_is_judged() -> None:
    tokens = load_round("v4.0").settings("llama2-70b", Scenario.Server, TestSettings(scenario=Scenario.Server))
    first, each = "result_first_token_99.00_percentile_latency_ns", "result_time_per_output_token_99.00_percentile_ns"
    metrics = {"result_99.00_percentile_latency_ns": 9e9, first: 31.2e6, each: 4.1e6}
    said: list[str] = []
    result: Any = SimpleNamespace(valid=True, metrics=metrics)
    _, (one, *_) = peak.find_server_rate(Layered(tokens, {}), lambda _: result, said.append)
    assert one.latency_ns == 31_200_000
    assert said[0] == "Server at 1/s, p99 of first token 31.20 ms, per token 4.10 ms, holds"


@pytest.fixture
def slow(benchmark_of: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Benchmark:
    """A model that takes 4 ms a batch, and so 2,000 samples a second in batches of 8."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(peak, "TRY_S", 0.4)
    made = benchmark_of()
    module: Any = sys.modules["fake_bench"]
    quick = module.Squares.submit

    def submit(self: Any, batch: Any) -> Future[Any]:
        time.sleep(0.004)
        answered: Future[Any] = quick(self, batch)
        return answered

    monkeypatch.setattr(module.Squares, "submit", submit)
    return made


def test_a_run_at_its_peak(slow: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    Path("user.conf").write_text("*.Server.target_latency = 200\n")
    words = ["--find-peak", "--mode", "performance", "--scenario", "Server", "--user-conf", "user.conf"]
    assert invoke(slow, [*words, "--qps", "1200", "--duration", "0.5", "--output", "out"]) == 0
    said = capsys.readouterr().out
    assert "Server at 1,200/s: p99" in said
    (test,) = json.loads(Path("out/results.json").read_text())["tests"]
    rate = test["settings"]["server_target_qps"]
    assert 200 <= rate <= 3500, "in half a second a queue grows beyond the limit at less than twice the model's rate"
    assert test["origins"]["server_target_qps"] == "found by --find-peak"
    held = [one["rate"] for one in test["rates_tried"] if one["valid"]]
    assert np.isclose(rate, [max(held) * share for share in peak.SHARES]).any()
    assert "Latency by rate" in Path("out/report.html").read_text()


def test_offlines_rate_is_found_too(slow: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "PROBE_S", 0.1)
    Path("user.conf").write_text("*.Offline.min_query_count = 1\n")
    loads: list[str] = []
    monkeypatch.setattr("fake_bench.Numbers.load", lambda self, indices: loads.append("load"))
    monkeypatch.setattr("fake_bench.Numbers.unload", lambda self, indices: loads.append("unload"))
    words = ["--find-peak", "--mode", "performance", "--scenario", "Offline", "--output", "out"]
    assert invoke(slow, [*words, "--duration", "0.5", "--user-conf", "user.conf"]) == 0
    assert loads == ["load", "unload"] * 2, "for all probes once, and for the test: samples may be 50 GB"
    (test,) = json.loads(Path("out/results.json").read_text())["tests"]
    assert 200 <= test["settings"]["offline_expected_qps"] <= 2100
