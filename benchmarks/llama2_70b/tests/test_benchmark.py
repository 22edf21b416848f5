"""The benchmark as the command line sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench_llama2_70b import assets
from bench_llama2_70b.benchmark import BENCHMARK
from bench_llama2_70b.postprocess import decode
from loadgen.harness.cli import invoke
from loadgen.harness.conformance import Check, conformance
from loadgen.logs import read_accuracy


@pytest.mark.usefixtures("at_llama_cpp")  # what the backend `endpoint` talks to
@pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


TEST06 = """*.*.mode = 2
*.*.accuracy_log_sampling_target = 100
*.*.min_query_count = 100
*.*.min_duration = 0
*.*.sample_concatenate_permutation = 0
"""


@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_answers_pass_the_audit_of_tokens(scenario: str, mini: Path, tmp_path: Path) -> None:
    """TEST06: the first token is the answer's, no more than one end, and as many ids as tokens are counted."""
    (tmp_path / "audit.config").write_text(TEST06)
    arguments = ["run", "--scenario", scenario, "--mode", "performance", "--data", str(mini), "--threads", "1"]
    arguments += ["--audit-conf", str(tmp_path / "audit.config"), "--output", str(tmp_path / "out")]
    assert invoke(BENCHMARK, arguments) in (0, 1), "so few queries may be too few for a verdict"
    entries = list(read_accuracy(tmp_path / "out" / scenario / "performance" / "mlperf_log_accuracy.json"))
    assert len(entries) >= 30
    for entry in entries:
        ids = decode(entry.data).tolist()
        assert len(ids) == entry.token_count
        assert ids.count(2) <= 1
        assert 2 not in ids[:-1]
        if scenario == "Server":
            assert entry.token_data is not None
            assert decode(entry.token_data).tolist() == ids[:1]


def test_the_report_has_times_of_tokens(mini: Path, tmp_path: Path) -> None:
    arguments = ["run", "--scenario", "SingleStream", "--mode", "performance", "--data", str(mini), "--threads", "1"]
    arguments += ["--duration", "1", "--output", str(tmp_path)]
    assert invoke(BENCHMARK, arguments) == 0
    (test,) = json.loads((tmp_path / "results.json").read_text())["tests"]
    metrics: dict[str, Any] = test["metrics"]
    first = metrics["result_first_token_99.00_percentile_latency_ns"]
    assert first > metrics["between_tokens_50.00_percentile_ns"] > 0
    page = (tmp_path / "report.html").read_text()
    for words in ("first token", "per output token", "between tokens", "Time per output token"):
        assert words in page


@pytest.mark.parametrize(("backend", "files"), [("pytorch", 19), ("endpoint", 2)])
def test_fetch_knows_the_files_of_each_backend(
    backend: str, files: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Data and tokenizer, and with them a config, an index and 15 shards."""
    assert invoke(BENCHMARK, ["fetch", "--check", "--backend", backend, "--data", str(tmp_path)]) == 2
    assert capfd.readouterr().out.count(": missing") == files


def test_the_full_profile_needs_no_weights_of_its_own(tmp_path: Path) -> None:
    for asset in assets.READ:
        (tmp_path / asset.path).parent.mkdir(exist_ok=True)
        (tmp_path / asset.path).touch()
    assets.prepare(tmp_path)


def test_memory_is_known_before_a_run() -> None:
    from bench_llama2_70b.memory import of_13b, of_70b

    assert of_70b("pytorch", "float8", 0) == pytest.approx(69.0, rel=0.001)
    assert of_70b("pytorch", "bfloat16", 32) == pytest.approx(144, rel=0.01)
    assert of_13b("pytorch", "bfloat16", 1) == pytest.approx(26.5, rel=0.02)
    assert of_70b("endpoint", "served", 1024) == 1.0
