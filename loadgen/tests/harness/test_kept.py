"""Nothing that was measured is lost, whatever ends a run; nothing that differs is mixed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadgen.harness import loading
from loadgen.harness.assets.asset import Asset
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.report import screen
from loadgen.harness.serving import BatchingSystem
from loadgen.progress import Progress
from loadgen.rules import Round

Make = Callable[..., Benchmark]
OFFLINE = ("--scenario", "Offline", "--mode", "accuracy", "--output", "out")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def recorded_in(folder: str) -> list[tuple[str, str, bool]]:
    data = json.loads(Path(folder, "results.json").read_text())
    return [(test["scenario"], test["mode"], test["interrupted"]) for test in data["tests"]]


def test_each_test_is_recorded_before_the_next_begins(benchmark_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[tuple[str, str, bool]]] = []

    def watched(entries: Any, dataset: Any, at: Any) -> dict[str, float]:
        seen.append(recorded_in("out"))
        return {"f1": float(100 * len(list(entries)) / 50), "exact_match": 0.0}

    monkeypatch.setattr("fake_bench.score", watched)
    assert invoke(benchmark_of(), ["--mode", "accuracy", "--output", "out"]) == 0
    assert [len(tests) for tests in seen] == [0, 1, 2]


def test_a_score_that_fails_loses_no_answers(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fake_bench.score", stopped)
        assert invoke(benchmark_of(), list(OFFLINE)) == 130
    assert recorded_in("out") == [("Offline", "AccuracyOnly", True)]
    assert "the answers are not scored: interrupted" in capsys.readouterr().out
    assert invoke(benchmark_of(), ["accuracy", "out/Offline/accuracy"]) == 0


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_ended_in_scoring_is_resumed_there(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], killed: bool
) -> None:
    """Stable Diffusion XL draws its 5,000 images for an hour."""

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fake_bench.score", stopped)
        assert invoke(benchmark_of(), list(OFFLINE)) == 130
    if killed:  # before anything of the test was recorded
        Path("out/Offline/accuracy/test.json").unlink()
        record = json.loads(Path("out/results.json").read_text())
        Path("out/results.json").write_text(json.dumps({**record, "tests": []}))
    log = Path("out/Offline/accuracy/mlperf_log_accuracy.json")
    before = log.stat().st_mtime_ns
    assert invoke(benchmark_of(), ["run", "--resume", "out"]) == 0
    assert "Offline accuracy: all samples were answered before; now they are scored" in capsys.readouterr().out
    assert log.stat().st_mtime_ns == before
    assert recorded_in("out") == [("Offline", "AccuracyOnly", False)]
    (test,) = json.loads(Path("out/results.json").read_text())["tests"]
    assert test["accuracy"]["values"]["f1"] == 100.0
    assert invoke(benchmark_of(), list(OFFLINE)) == 0  # not resumed: everything again
    assert log.stat().st_mtime_ns > before


def test_a_scenario_joins_the_results_of_its_folder(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(benchmark_of(), list(OFFLINE)) == 0
    assert invoke(benchmark_of(), ["--scenario", "server", "--mode", "accuracy", "--output", "out"]) == 0
    assert [test[0] for test in recorded_in("out")] == ["Offline", "Server"]
    assert "Offline" in Path("out/results.csv").read_text()
    assert (
        invoke(benchmark_of(), ["--scenario", "Server", "--mode", "accuracy", "--output", "out", "--batch", "3"]) == 2
    )
    assert "batch 8 there, 3 now): choose another folder by --output" in capsys.readouterr().err


def test_two_runs_do_not_share_a_folder(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    Path("out").mkdir()
    with Path("out/.in-use").open("w") as held:
        held.write("process 7 on elsewhere")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        assert invoke(benchmark_of(), list(OFFLINE)) == 2
    assert "out is in use by process 7 on elsewhere: wait for it" in capsys.readouterr().err
    assert invoke(benchmark_of(), list(OFFLINE)) == 0


def test_runs_of_one_second_get_folders_of_their_own(benchmark_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101T000000Z")
    for _ in range(2):
        assert invoke(benchmark_of(), list(OFFLINE[:4])) == 0
    assert {path.name for path in Path("results/squares").iterdir()} == {"20260101T000000Z", "20260101T000000Z-2"}


def test_an_interrupted_run_is_resumed(benchmark_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke(benchmark_of(), ["--mode", "accuracy", "--output", "out", "--batch", "5"]) == 0
    whole = recorded_in("out")
    data = json.loads(Path("out/results.json").read_text())
    data["tests"][1]["interrupted"] = True
    del data["tests"][2]
    Path("out/results.json").write_text(json.dumps(data))
    scored: list[int] = []

    def score(entries: Any, dataset: Any, at: Any) -> dict[str, float]:
        scored.append(len(list(entries)))
        return {"f1": 100.0, "exact_match": 0.0}

    monkeypatch.setattr("fake_bench.score", score)
    assert invoke(benchmark_of(), ["run", "--resume", "out"]) == 0
    assert scored == [50, 50]
    assert sorted(recorded_in("out")) == sorted(whole)
    assert json.loads(Path("out/results.json").read_text())["options"]["batch"] == 5


def test_a_folder_that_is_removed_meanwhile_is_made_again(benchmark_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = BatchingSystem.stop

    def stopped(system: Any) -> None:
        shutil.rmtree("out", ignore_errors=True)
        stop(system)

    monkeypatch.setattr(BatchingSystem, "stop", stopped)
    assert invoke(benchmark_of(), ["--scenario", "Offline", "--output", "out"]) == 0
    assert [test[1] for test in recorded_in("out")] == ["PerformanceOnly", "AccuracyOnly"]
    assert Path("out/Offline/accuracy/mlperf_log_accuracy.json").is_file()
    assert Path("out/report.html").is_file()


def test_a_full_disk_names_the_file(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("loadgen.harness.report.record.json.dumps", full)
        assert invoke(benchmark_of(), list(OFFLINE)) == 2
    assert "out/results.json cannot be written (No space left on device)" in capsys.readouterr().err


@pytest.fixture
def toy_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a toy benchmark's command line in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "toys"), prepend=os.pathsep)
    heeded = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # which is ignored under nohup
    code = f"{heeded}; import ragged; from loadgen.harness.cli import main; main(ragged.BENCHMARK)"
    begun: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        begun.append(subprocess.Popen([sys.executable, "-c", code, *words], stdout=pipe, stderr=pipe, text=True))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_run_as_ctrl_c_does(how: signal.Signals, toy_run: Callable[..., subprocess.Popen[str]]) -> None:
    process = toy_run("run", "--scenario", "Server", "--mode", "performance", "--duration", "60", "--output", "out")
    wait_for(Path("out/Server/performance"))
    time.sleep(0.5)
    process.send_signal(how)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, said + errors
    assert recorded_in("out") == [("Server", "PerformanceOnly", True)]
    name = "Ctrl-C" if how is signal.SIGINT else how.name
    assert f"Interrupted by {name}" in " ".join(said.split())
    assert "--qps" not in said, "no advice on a test that was not allowed to end"
    assert Path("out/report.html").is_file()


def test_a_reader_that_leaves_does_not_end_a_run(toy_run: Callable[..., subprocess.Popen[str]]) -> None:
    process = toy_run("run", "--scenario", "Offline", "--output", "out")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 0
    assert len(recorded_in("out")) == 2


def test_quiet_says_why_a_test_is_invalid(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--mode", "performance", "--scenario", "Offline", "--duration", "60", "--qps", "1", "--quiet"]
    assert invoke(benchmark_of(), [*words, "--output", "out"]) == 1
    said = capsys.readouterr().out
    assert "Offline performance is INVALID: the test lasted" in said
    assert "logs and results: out" in said
    assert invoke(benchmark_of(), [*OFFLINE[:4], "--quiet"]) == 0
    assert not capsys.readouterr().out


@pytest.mark.parametrize("width", [110, 80, 60, 40])
def test_a_narrow_terminal_cuts_no_result(width: int) -> None:
    rows = [screen.Row("SingleStream", "performance", "latency p90, early stopping 0.375 ms", "INVALID", 32_166, 10.1)]
    out = screen.console(quiet=False)
    out.width = width
    with out.capture() as captured:
        out.print(screen.table("Squares", rows, width))
    said = captured.get()
    assert "INVALID" in said
    assert "10.1 s" in said
    assert all(len(line.rstrip()) <= width for line in said.splitlines())
    assert "0.375" in said
    assert "ms" in said
    assert "…" not in said


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (80, "1,234 of 5,000 samples  98.7/s  p50 3.10 ms  p99 8.00 ms  ETA 12 s"),
        (48, "1,234 of 5,000 samples  98.7/s  ETA 12 s"),
        (30, "1,234 of 5,000  ETA 12 s"),
    ],
)
def test_progress_in_little_room_says_how_long_it_takes(width: int, said: str) -> None:
    now = Progress(1300, 1234, 5000, 12.5, 98.7, 3_100_000, 8_000_000, 12.0)
    assert screen.describe(now, width) == said


def test_a_line_of_progress_stays_one_line_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the counts of ten minutes on a GPU it is longer than the 110 columns of tables."""
    monkeypatch.setattr(screen, "_PLAIN_PERIOD_S", 0.0)
    now = Progress(12_276_000, 9_784_906, 12_276_000, 660.0, 14_838.3, 358_479_330_000, 653_836_530_000, 168.0)
    with screen.watching("Offline performance", screen.console(quiet=False)) as report:
        assert report is not None
        report(now)
    assert capsys.readouterr().out.splitlines() == [f"Offline performance: {screen.describe(now)}"]


def test_official_files_alone_make_no_benchmark_result(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full/model").mkdir(parents=True)
    Path("full/model/weights").write_bytes(b"others")
    listed = [Asset("model/weights", "", "none", md5="0" * 32)]
    monkeypatch.setattr("fake_bench.ASSETS", listed, raising=False)
    made = benchmark_of()
    full = replace(made.profiles["mini"], is_official=True, settings={}, samples=51, assets="fake_bench:ASSETS")
    made = replace(made, profiles={**made.profiles, "full": full})
    words = ["--profile", "full", "--data", "full", "--scenario", "Offline", "--duration", "0.001", "--qps", "9000"]
    assert invoke(made, [*words, "--output", "out"]) == 0
    said = capsys.readouterr().out
    begun, ended = said.split("Offline performance:", 1)[0], said
    for shortfall in (
        "model/weights is wrong: its md5 is ",
        "the data set has 50 samples, the official one 51",
        "Offline PerformanceOnly: min_duration_ms is 1, by the rules 600000 (command line)",
    ):
        assert shortfall in " ".join(begun.split())
        assert shortfall in " ".join(ended.split())
    data = json.loads(Path("out/results.json").read_text())
    assert data["benchmark_result"] is False
    assert len(data["shortfalls"]) == 4


def test_a_run_says_that_samples_are_being_loaded(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "_SAID_EACH_S", 0.02)
    monkeypatch.setattr("fake_bench.Numbers.load", lambda self, indices: time.sleep(0.2))
    assert invoke(benchmark_of(), ["--scenario", "Offline", "--output", "out"]) == 0
    said = capsys.readouterr().out
    for mode in ("performance", "accuracy"):
        assert f"Offline {mode}: loading 50 samples, for 0 s now" in said


def test_a_run_by_the_rules_is_called_one(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With rules of a second: these take ten minutes."""
    short = {"min_duration_ms": 1, "min_query_count": 1}
    monkeypatch.setattr(Round, "settings", lambda self, model, scenario, base: replace(base, **short))
    full = replace(benchmark_of().profiles["mini"], is_official=True, settings={})
    made = replace(benchmark_of(), profiles={"full": full})
    words = ["--data", "full", "--scenario", "Offline", "--qps", "900000", "--output", "out"]
    assert invoke(made, words) == 0
    assert "A benchmark result by the rules" in capsys.readouterr().out
    assert json.loads(Path("out/results.json").read_text())["benchmark_result"] is True
    assert invoke(made, [*words, "--mode", "performance"]) == 0
    assert json.loads(Path("out/results.json").read_text())["benchmark_result"] is True, "the accuracy test was kept"


def test_of_repeated_tests_the_middle_one_counts(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--mode", "performance", "--scenario", "Offline", "--repeat", "3", "--output"]
    assert invoke(benchmark_of(), [*words, "out"]) == 0
    assert "; median of 3, spread" in " ".join(capsys.readouterr().out.split())
    (test,) = json.loads(Path("out/results.json").read_text())["tests"]
    assert len(test["repeats"]) == 3
    assert sorted(test["repeats"])[1] == test["headline"]["value"]
    assert {path.name for path in Path("out/Offline").iterdir()} == {"performance", "performance-2", "performance-3"}
    assert (Path("out") / test["folder"] / "mlperf_log_summary.txt").is_file()


def test_a_difference_within_the_spread_says_nothing(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--mode", "performance", "--scenario", "Offline", "--quiet", "--output"]
    for name, factor in (("a", 1.0), ("b", 0.95)):
        assert invoke(benchmark_of(), [*words, name]) == 0
        data = json.loads(Path(name, "results.json").read_text())
        data["tests"][0]["headline"]["value"] = 1000 * factor
        data["tests"][0]["repeats"] = [960 * factor, 1000 * factor, 1040 * factor]
        Path(name, "results.json").write_text(json.dumps(data))
    assert invoke(benchmark_of(), ["compare", "a", "b", "--fail-above", "2"]) == 0
    assert "5.0 % worse, within the spread of 8.0 %" in " ".join(capsys.readouterr().out.split())
    data["tests"][0]["headline"]["value"] = 900.0
    Path("b/results.json").write_text(json.dumps(data))
    assert invoke(benchmark_of(), ["compare", "a", "b", "--fail-above", "2"]) == 1


def wait_for(place: Path) -> None:
    for _ in range(600):
        if place.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{place} did not appear")
