"""Two runs side by side: what is better, what is worse, what else differs, and the exit code."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.report import record
from loadgen.harness.report.charts import draw_pair
from loadgen.harness.report.compare import Comparison, compare, show
from loadgen.harness.report.page import figure

Make = Callable[..., Benchmark]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps the one run of these tests, once there is one."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def runs(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark_of: Make) -> Benchmark:
    """A run in `a` and the same one in `b`, of which the test may change what it likes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    benchmark = benchmark_of()
    if not (kept / "a").exists():
        assert invoke(benchmark, ["--output", str(kept / "a"), "--quiet"]) == 0
    for name in ("a", "b"):
        shutil.copytree(kept / "a", name)
    return benchmark


def change(folder: str, make: Callable[[dict[str, Any]], None]) -> Comparison:
    """Compare a with b after a change of one's `results.json`."""
    file = Path(folder, "results.json")
    data = json.loads(file.read_text())
    make(data)
    file.write_text(json.dumps(data))
    return compare(record.read(Path("a")), record.read(Path("b")))


def scale(factor: float, number: int) -> Callable[[dict[str, Any]], None]:
    """Make the headline of a test so many times as large. Tests: 0 SingleStream, 2 Server, 4 Offline."""

    def make(data: dict[str, Any]) -> None:
        data["tests"][number]["headline"]["value"] *= factor

    return make


def headlines(found: Comparison) -> dict[str, str]:
    return {m.test: m.change for m in found.metrics if m.judged}


def test_the_same_run_is_the_same(runs: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(runs, ["compare", "a", "b", "--fail-above", "0"]) == 0
    printed = capsys.readouterr().out
    assert "better" not in printed
    assert "worse" not in printed
    assert "changed" not in printed
    assert printed.count("same") >= 12
    assert "Neither is a benchmark result: the mini profile is numbers, embedded." in " ".join(printed.split())
    assert "differs" not in printed


@pytest.mark.parametrize(
    ("number", "factor", "expected"),
    [
        (0, 1.1, "10.0 % worse"),  # a latency
        (0, 0.5, "50.0 % better"),
        (4, 0.9, "10.0 % worse"),
        (4, 1.0001, "same"),
    ],
)
def test_better_and_worse_depend_on_the_metric(runs: Benchmark, number: int, factor: float, expected: str) -> None:
    test = {0: "SingleStream performance", 2: "Server performance", 4: "Offline performance"}[number]
    assert headlines(change("b", scale(factor, number)))[test] == expected


@pytest.mark.parametrize(("percent", "code"), [("5", 1), ("9.9", 1), ("10.1", 0), (None, 0)])
def test_fail_above_decides_the_exit_code(
    runs: Benchmark, percent: str | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    change("b", scale(0.9, 4))
    option = ["--fail-above", percent] if percent else []
    assert invoke(runs, ["compare", "a", "b", *option]) == code
    assert ("Offline performance throughput is 10.0 % worse" in capsys.readouterr().out) == bool(code)


def test_a_better_run_never_fails(runs: Benchmark) -> None:
    found = change("b", scale(10, 4))
    assert found.failures(0) == []


def test_a_worse_score_counts(runs: Benchmark) -> None:
    def spoil(data: dict[str, Any]) -> None:
        data["tests"][1]["accuracy"]["values"]["f1"] = 90.0

    found = change("b", spoil)
    assert found.failures(5) == [
        "SingleStream accuracy was VALID in A and is MISSED in B",
        "SingleStream accuracy f1 is 10.0 % worse, more than 5 %",
    ]


def test_servers_latency_is_judged_where_both_were_asked_for_one_rate(
    runs: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(data: dict[str, Any]) -> None:
        data["tests"][2]["metrics"]["result_99.00_percentile_latency_ns"] *= 3

    assert change("b", slow).failures(5) == ["Server performance latency p99 is 200.0 % worse, more than 5 %"]
    assert invoke(runs, ["compare", "a", "b"]) == 0
    assert "completed rate, samples/s (not judged)" in " ".join(capsys.readouterr().out.split())

    def faster(data: dict[str, Any]) -> None:
        slow(data)
        data["tests"][2]["settings"]["server_target_qps"] *= 2
        data["tests"][2]["headline"]["value"] *= 2

    found = change("b", faster)
    assert found.failures(5) == [], "at twice the rate the rate is judged, as long as the test is VALID"
    assert headlines(found)["Server performance"] == "100.0 % better"


def test_percentiles_are_shown_but_not_judged(runs: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    def slow(data: dict[str, Any]) -> None:
        data["tests"][0]["metrics"]["result_99.00_percentile_latency_ns"] *= 3

    assert change("b", slow).failures(5) == []
    assert invoke(runs, ["compare", "a", "b"]) == 0
    assert "200.0 % worse" in capsys.readouterr().out


def test_an_invalid_test_fails_and_its_figures_are_not_compared(runs: Benchmark) -> None:
    def invalidate(data: dict[str, Any]) -> None:
        data["tests"][2] |= {"valid": False, "reasons": ["too slow"]}
        data["tests"][2]["headline"]["value"] *= 2

    found = change("b", invalidate)
    assert headlines(found)["Server performance"] == "-"
    assert found.failures(5) == ["Server performance was VALID in A and is INVALID in B"]


def test_a_test_that_only_one_run_has(runs: Benchmark) -> None:
    found = change("b", lambda data: data["tests"].pop(0))
    assert found.failures(5) == ["SingleStream performance was VALID in A and is not run in B"]
    assert change("a", lambda data: data["tests"].pop(0)).failures(5) == []


def test_what_differs_is_listed(runs: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    def differ(data: dict[str, Any]) -> None:
        data["options"]["batch"] = 64
        data["machine"]["processor"] = "[bold]another[/bold]"
        data["machine"]["accelerator"] = "one"
        data["tests"][2]["settings"]["server_target_qps"] = 77.0

    found = change("b", differ)
    assert [(d.of, d.name, d.b) for d in found.differences] == [
        ("run", "batch", "64"),
        ("Server performance", "server_target_qps", "77"),
        ("machine", "processor", "[bold]another[/bold]"),
        ("machine", "accelerator", "one"),
    ]
    assert invoke(runs, ["compare", "a", "b"]) == 0
    printed = capsys.readouterr().out
    assert "[bold]another[/bold]" in printed
    assert "server_target_qps" in printed


def test_the_page_says_what_the_screen_says(runs: Benchmark) -> None:
    change("b", scale(0.9, 4))
    change("b", lambda data: data["machine"].update(processor="<script>x</script>"))
    assert invoke(runs, ["compare", "a", "b", "--html", "compare.html", "--fail-above", "5"]) == 1
    text = Path("compare.html").read_text("utf-8")
    assert "10.0 % worse" in text
    assert "Offline performance throughput is 10.0 % worse, more than 5 %" in text
    assert "&lt;script&gt;x" in text
    assert "<script" not in text
    assert "http" not in text


def test_other_profiles_and_old_files_are_warned_about(runs: Benchmark) -> None:
    def differ(data: dict[str, Any]) -> None:
        data["profile"] = "full"
        del data["tests"][0]["settings"]

    first, _, second = change("b", differ).warnings
    assert "A is of profile mini, B of full" in first
    assert "B has no record of its settings" in second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "nowhere"], "nowhere/results.json cannot be read"),
        (["empty", "b"], "empty/results.json cannot be read"),
        (["a", "other"], "other of cubes: compare runs of one benchmark"),
        (["a", "b", "--html", "nowhere/c.html"], "--html nowhere/c.html cannot be written"),
        (["a", "b", "--fail-above", "-1"], "-1"),
        (["a"], "Missing argument"),
    ],
)
def test_bad_input_is_exit_code_2(
    runs: Benchmark, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    shutil.copytree("a", "other")
    file = Path("other/results.json")
    file.write_text(file.read_text().replace('"squares"', '"cubes"'))
    assert invoke(runs, ["compare", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_page_draws_both_runs_over_each_other(runs: Benchmark) -> None:
    assert invoke(runs, ["compare", "a", "b", "--html", "page.html"]) == 0
    text = Path("page.html").read_text()
    assert text.count("<svg") == text.count("Latency distributions") == 3  # of each scenario's performance test
    assert text.count("A thick, B thin") == 3
    assert {"var(--line)", "var(--second)"} <= set(re.findall(r"var\(--\w+\)", text[text.index("<svg") :]))
    assert len(set(re.findall(r'\bid="([^"]+)"', text))) == len(re.findall(r'\bid="([^"]+)"', text))
    Path("b/Server/performance/columns.npz").unlink()
    Path("b/Offline/performance/columns.npz").write_bytes(b"no columns")
    assert invoke(runs, ["compare", "a", "b", "--html", "page.html"]) == 0
    assert Path("page.html").read_text().count("<svg") == 1, "a figure less, and no error"


def test_two_distributions_share_an_axis() -> None:
    fast, slow = np.arange(1, 1001) * 10**6, np.arange(1, 11) * 10**8
    chart = draw_pair(fast, slow, "x", 2 * 10**9)
    assert chart.note.endswith("A thick, B thin; dashed: limit of 2 s.")
    assert "99.9" in chart.svg, "as far as the larger of the two goes"
    one_each = draw_pair(fast[:1], slow[:1], "x")
    assert "<path" in one_each.svg


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_cuts_no_word(width: int, runs: Benchmark) -> None:
    found = change("b", lambda data: data["options"].update(batch=3))
    out = Console(file=io.StringIO(), width=width)
    show(found, out)
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, said.splitlines())) <= width
    for word in ("SingleStream", "performance", "exact_match", "VALID", "throughput", "samples/s", "batch"):
        assert word in said
    value = figure(next(m.a for m in found.metrics if m.name == "throughput"))
    assert re.search(rf"A {value}  B {value}  same" if width < 60 else rf"{value} │ +{value} │ +same", said)
