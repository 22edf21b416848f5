"""The command `comply` as a user meets it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import I64, Answers
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.comply import words_of_run
from loadgen.logs import metrics_of, read_detail
from loadgen.settings import Scenario

Make = Callable[..., Benchmark]
LONGER = {"min_duration_ms": 300}  # in which a figure settles, so that a tenth is much


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def squares(benchmark_of: Make) -> Benchmark:
    """Server at a rate that any machine keeps, so that its completed samples a second do not vary."""
    made = benchmark_of()
    server = {**made.profiles["mini"].settings[Scenario.Server], "server_target_qps": 1000.0, **LONGER}
    profile = replace(made.profiles["mini"], settings={**made.profiles["mini"].settings, Scenario.Server: server})
    return replace(made, profiles={"mini": profile})


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "toys"))
    monkeypatch.delitem(sys.modules, "tokens", raising=False)
    made: Benchmark = importlib.import_module("tokens").BENCHMARK
    return made


def found(folder: str = "out") -> dict[tuple[str, str], dict[str, Any]]:
    records = json.loads((Path(folder) / "compliance.json").read_text())
    return {(one["scenario"], one["test"]): one for one in records}


def test_one_call_runs_judges_and_places(squares: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(squares, ["comply", "--scenario", "Server", "--output", "out"]) == 0
    assert {key: one["passed"] for key, one in found().items()} == {
        ("Server", "TEST01"): {"0.99": True, "0.999": True},
        ("Server", "TEST05"): {"0.99": True, "0.999": True},
    }
    printed = capsys.readouterr().out
    assert "accuracy: " in printed
    assert "answers equal" in printed
    files = {
        file.relative_to("out/compliance").as_posix() for file in Path("out/compliance").rglob("*") if file.is_file()
    }
    logs = {"performance/run_1/mlperf_log_summary.txt", "performance/run_1/mlperf_log_detail.txt"}
    speed = {"verify_performance.txt"} | logs
    answers = {"verify_accuracy.txt", "accuracy/mlperf_log_accuracy.json", "accuracy/accuracy.txt"}
    assert files == {f"Server/TEST01/{file}" for file in speed | answers} | {f"Server/TEST05/{file}" for file in speed}
    # Nothing lies elsewhere, such as an audit.config where the command was given.
    assert {path.name for path in Path().iterdir()} <= {"out", "cache"}
    assert not [path.name for path in Path("out").iterdir() if path.name.startswith(".TEST")]


def test_the_tests_settings_are_those_of_the_rules(squares: Benchmark) -> None:
    assert invoke(squares, ["comply", "--scenario", "Server", "--output", "out", "--qps", "900", "--quiet"]) == 0
    seeds, logged = {}, {}
    for test in ("TEST01", "TEST05"):
        run = Path("out/compliance/Server") / test / "performance" / "run_1"
        values = metrics_of(read_detail(run / "mlperf_log_detail.txt"))
        seeds[test] = values["effective_schedule_rng_seed"]
        logged[test] = values["effective_accuracy_log_sampling_target"]
        assert values["effective_target_qps"] == 900
        assert values["effective_test_mode"] == "PerformanceOnly"
    assert seeds == {"TEST01": 7575108116881280410, "TEST05": 3911940905271271337}
    assert logged == {"TEST01": 4096, "TEST05": 0}


def test_a_finished_run_is_taken_up(squares: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(squares, ["run", "--scenario", "Server", "--qps", "800", "--output", "out", "--quiet"]) == 0
    before = Path("out/Server/performance/mlperf_log_detail.txt").read_bytes()
    assert invoke(squares, ["comply", "out", "--tests", "TEST05"]) == 0
    assert Path("out/Server/performance/mlperf_log_detail.txt").read_bytes() == before
    assert invoke(squares, ["comply", "out", "--tests", "TEST01"]) == 0
    assert sorted(test for _, test in found()) == ["TEST01", "TEST05"]  # the other one is kept
    (performance, _) = json.loads(Path("out/results.json").read_text())["tests"]
    assert {one["performance_finished"] for one in found().values()} == {performance["finished"]}
    assert invoke(squares, ["run", "--resume", "out"]) == 0
    assert "Server performance" not in capsys.readouterr().err


def test_an_answer_that_differs_under_the_clock_fails(
    squares: Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last byte alone: the official script sees nothing. The score sees a sample that is wrong."""
    whole, mode = sys.modules["fake_bench"].__dict__["encode"], {"accuracy": True}

    def cheating(outputs: I64, indices: I64, dataset: Any) -> Answers:
        return whole(outputs if mode["accuracy"] else outputs + (1 << 24) * (indices == 7), indices, dataset)  # type: ignore[no-any-return]

    monkeypatch.setitem(sys.modules["fake_bench"].__dict__, "encode", cheating)
    assert invoke(squares, ["run", "--scenario", "Server", "--output", "out"]) == 0
    mode["accuracy"] = False
    assert invoke(squares, ["comply", "out", "--tests", "TEST01"]) == 1
    said = capsys.readouterr().out
    assert "Server TEST01 FAILED: of the logged samples: f1 100 -> 98 (2.04 % of 1 %)" in " ".join(said.split())
    assert "1 samples of" in said
    assert "the official script says TEST PASS" in " ".join(said.replace("│", " ").split())
    placed = Path("out/compliance/Server/TEST01")
    assert "TEST PASS" not in (placed / "verify_accuracy.txt").read_text()
    assert '"f1": 100.0' in (placed / "accuracy" / "baseline_accuracy.txt").read_text()
    assert '"f1": 98.0' in (placed / "accuracy" / "compliance_accuracy.txt").read_text()


def test_a_system_that_remembers_answers_is_found(
    squares: Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TEST04: one sample again and again is much faster."""
    import time

    seen: dict[int, int] = {}
    compute = sys.modules["fake_bench"].__dict__["Squares"].submit

    def remembering(self: Any, batch: I64) -> Any:
        if not set(batch.tolist()) <= set(seen):
            time.sleep(0.004)
        seen.clear()
        seen.update(dict.fromkeys(batch.tolist(), 1))
        return compute(self, batch)

    monkeypatch.setattr(sys.modules["fake_bench"].__dict__["Squares"], "submit", remembering)
    assert invoke(squares, ["comply", "--scenario", "SingleStream", "--tests", "TEST04", "--output", "out"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "SingleStream TEST04 FAILED:" in said
    assert not found()["SingleStream", "TEST04"]["passed"]["0.99"]


def test_tokens(tokens: Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(tokens, ["comply", "--output", "out"]) == 0
    assert set(found()) == {("Server", "TEST06"), ("Offline", "TEST06")}
    server = Path("out/compliance/Server/TEST06")
    assert (server / "verify_accuracy.txt").read_text().splitlines() == [
        "First token check pass: True",
        "EOS check pass: True",
        "Sample length check pass: True",
        "TEST06 verification complete",
    ]
    assert not (server / "verify_performance.txt").exists()
    values = metrics_of(read_detail(server / "performance" / "run_1" / "mlperf_log_detail.txt"))
    assert (values["effective_min_query_count"], values["effective_min_duration_ms"]) == (100, 0)

    def two_ends(outputs: Any, indices: I64, dataset: Any) -> Answers:
        return whole([np.append(ids, [2, 2]) for ids in outputs], indices, dataset)  # type: ignore[no-any-return]

    module = sys.modules["tokens"].__dict__
    whole = module["encode"]
    monkeypatch.setitem(module, "encode", two_ends)
    assert invoke(tokens, ["comply", "out"]) == 1
    assert "has more than one 2 at its end" in " ".join(capsys.readouterr().out.split())


def test_an_invalid_performance_run_proves_nothing(squares: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**squares.profiles["mini"].settings}
    settings[Scenario.Server] = {**settings[Scenario.Server], "server_target_latency_ns": 1}
    late = replace(squares, profiles={"mini": replace(squares.profiles["mini"], settings=settings)})
    assert invoke(late, ["comply", "--scenario", "Server", "--output", "out"]) == 1
    assert "Server TEST01 FAILED: the performance run is INVALID" in " ".join(capsys.readouterr().out.split())
    assert not list(Path("out/compliance").rglob("*"))
    Path("out/compliance.json").write_text("{")
    assert invoke(late, ["comply", "out"]) == 2
    assert "compliance.json cannot be read" in capsys.readouterr().err


def test_names_of_tests(squares: Benchmark, tokens: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    for benchmark, words, said in [
        (squares, ["--tests", "TEST06"], "no such test of squares: choose auto or some of TEST01, TEST04, TEST05"),
        (squares, ["--tests", "TEST05", "--round", "v5.0"], "round v5.0 has no such test of squares"),
        (tokens, ["--tests", "TEST01"], "choose auto or some of TEST04, TEST05, TEST06"),
        (squares, ["--tests", "test01"], "--tests test01: round v4.0 has no such test"),
    ]:
        assert invoke(benchmark, ["comply", *words]) == 2
        assert said in capsys.readouterr().err
    none = replace(squares, model="gptj")
    assert invoke(none, ["comply"]) == 0
    assert "Round v4.0 asks for no compliance test of squares." in " ".join(capsys.readouterr().out.split())
    assert not Path("results").exists()


def test_before_v2_1_there_are_two_runs_and_the_verdict_lies_with_the_first(
    squares: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(*_: Any) -> dict[str, float]:
        return {"accuracy": 100.0, "good": 50, "total": 50}

    monkeypatch.setitem(sys.modules["fake_bench"].__dict__, "score", score)
    profile = replace(squares.profiles["mini"], reference={"accuracy": 100.0})
    old = replace(squares, model="resnet50", profiles={"mini": profile})
    words = ["comply", "--round", "v2.0", "--scenario", "Server", "--output", "out", "--tests", "TEST04-B"]
    code = invoke(old, words)
    assert [test for _, test in found()] == ["TEST04-A", "TEST04-B"]
    text = Path("out/compliance/Server/TEST04-A/verify_performance.txt").read_text()
    rates = {}
    for test in ("TEST04-A", "TEST04-B"):
        values = metrics_of(read_detail(Path(f"out/compliance/Server/{test}/performance/run_1/mlperf_log_detail.txt")))
        assert values["effective_performance_issue_unique"] is (test == "TEST04-A")
        assert values["effective_performance_issue_same"] is (test == "TEST04-B")
        rates[test] = values["result_scheduled_samples_per_sec"]
    assert text.splitlines()[:2] == [f"reference score = {rates['TEST04-A']}", f"test score = {rates['TEST04-B']}"]
    passes = rates["TEST04-B"] < 1.1 * rates["TEST04-A"]  # type: ignore[operator]
    assert ("TEST PASS" in text.splitlines(), code) == (passes, int(not passes))


def test_words_of_run() -> None:
    assert words_of_run(["--tests", "auto", "--qps", "5", "--tests=TEST01", "x"]) == ("--qps", "5", "x")
