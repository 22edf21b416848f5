"""The report of a run: what it says, that it is safe to open, and that it stays small."""

from __future__ import annotations

import csv
import html.parser
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import InputError
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.report import charts, columns, record
from loadgen.harness.report.page import judged_of, latency_table, write_report
from loadgen.results import Records

Make = Callable[..., Benchmark]
EVIL = "<script>alert(1)</script>\"'&"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Page(html.parser.HTMLParser):
    """Tags, attributes and words of a page; fails on a tag that is not closed in its turn."""

    VOID = ("meta", "br", "wbr", "path", "use", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words = " ".join([*self.words.split(), *data.split()])


def ran(benchmark: Benchmark, *options: str, code: int = 0) -> Path:
    """The output folder of a run with these options."""
    assert invoke(benchmark, ["--output", "out", "--quiet", *options]) == code
    return Path("out")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that only reads a run of everything puts it, for the others to copy."""
    return tmp_path_factory.mktemp("made") / "out"


@pytest.fixture
def everything(benchmark_of: Make, made: Path) -> Path:
    """`out`, of every scenario in both modes."""
    if not made.is_dir():
        ran(benchmark_of()).rename(made)
    shutil.copytree(made, "out")
    return Path("out")


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text("utf-8"))


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> Page:
    """The page after a change of `results.json`."""
    file = folder / "results.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    write_report(folder)
    return page_of(folder)


def test_a_run_ends_with_a_report_of_every_test(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(benchmark_of(), ["--output", "out"]) == 0
    assert "report: out/report.html" in capsys.readouterr().out
    page = page_of(Path("out"))
    for said in ("SingleStream, performance VALID", "Server, accuracy VALID", "Offline, performance VALID"):
        assert said in page.words
    assert "This is not a benchmark result: the mini profile is numbers, embedded." in page.words
    assert "f1 100.0000 >= 99.000 (99 %) met >= 99.900 (99.9 %) met" in page.words
    assert "✓ latency limit" in page.words
    assert page.words.count("Latency distribution") == 3
    assert page.words.count("Throughput over time") == 3
    assert page.words.count("Latency over time") == 2  # Offline sends everything at once
    assert page.words.count("Batches formed") == page.words.count("Waiting and computing") == 2  # not in SingleStream
    assert page.tags.count("svg") == 14
    assert "backend numpy" in page.words
    assert "inference-loadgen" in page.words
    assert not re.search(r"\bnan\b|None|Undefined", page.words)


def test_latencies_are_those_of_the_log(benchmark_of: Make) -> None:
    folder = ran(benchmark_of(), "--scenario", "Server", "--mode", "performance")
    (test,) = record.read(folder).tests
    words = page_of(folder).words
    for p in ("50.00", "99.00", "99.90"):
        assert f"{test.metrics[f'result_{p}_percentile_latency_ns'] / 1e6:,.3f}" in words
    saved = columns.read(test.folder)
    assert int(np.sort(saved.latencies_ns)[-1]) == test.metrics["result_max_latency_ns"]


def test_settings_say_where_they_are_from(benchmark_of: Make) -> None:
    Path("user.conf").write_text("bert.Server.min_query_count = 700\n")
    folder = ran(benchmark_of(), "--scenario", "Server", "--qps", "4000", "--user-conf", "user.conf")
    words = page_of(folder).words.replace("_ ", "_")
    assert "server_target_qps 4,000 command line" in words
    assert "min_query_count 700 user.conf" in words
    assert "qsl_rng_seed 13281865557512327830 rules v4.0" in words
    assert "server_target_latency_ns 1,000,000,000 (1,000 ms) profile" in words
    assert "server_ttft_latency 100,000,000 (100 ms)" in words, "in ns, though its name does not say so"
    assert "min_duration_ms 200 (0.2 s) profile" in words
    assert "The same as in Server, performance" in words


def test_every_test_is_a_row_of_the_csv(everything: Path) -> None:
    folder = everything
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    tests = record.read(folder).tests
    assert [(r["scenario"], r["mode"]) for r in rows] == [(t.scenario, t.kind) for t in tests]
    assert float(rows[0]["value"]) == tests[0].headline["value"]  # type: ignore[index]
    assert rows[1]["f1"] == "100.0"
    assert {row["benchmark_result"] for row in rows} == {"False"}


def test_an_invalid_test_says_what_failed_and_what_to_do(benchmark_of: Make) -> None:
    options = ("--mode", "performance", "--scenario", "Offline", "--duration", "60", "--qps", "1")
    words = page_of(ran(benchmark_of(), *options, code=1)).words
    assert "✗ NOT MET: minimum duration, 60,000 ms" in words
    assert "Why it is INVALID, and what to do the test lasted" in words
    assert "where 60 s are asked (min_duration): set offline_expected_qps (--qps) to" in words


def test_a_missed_target_is_no_plain_valid(benchmark_of: Make) -> None:
    page = page_of(ran(benchmark_of(reference=102.0), "--mode", "accuracy", "--scenario", "Offline", code=1))
    assert "f1 100.0000 >= 100.980 (99 %) MISSED >= 101.898 (99.9 %) MISSED" in page.words
    assert "VALID" not in page.words


def test_a_failed_run_has_a_report_too(benchmark_of: Make) -> None:
    words = page_of(ran(benchmark_of(bad=13), "--scenario", "Server", code=3)).words
    assert "no square for that" in words
    assert "Server, performance INVALID" in words


def test_an_interrupted_run_keeps_its_report(benchmark_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(self: Any, batch: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("fake_bench.Squares.submit", press)
    folder = ran(benchmark_of(), "--scenario", "SingleStream", "--mode", "performance", code=130)
    words = page_of(folder).words
    assert "interrupted" in words
    assert "No charts: no query was answered" in words


def test_names_are_text_and_never_markup(benchmark_of: Make) -> None:
    folder = ran(benchmark_of(), "--scenario", "Offline")

    def poison(data: dict[str, Any]) -> None:
        data |= {"benchmark": EVIL, "title": EVIL, "profile": EVIL, "profile_summary": EVIL}
        data["machine"] = data["options"] = {EVIL: EVIL, "backend": EVIL}
        for test in data["tests"]:
            test |= {"scenario": EVIL, "finished": EVIL, "reasons": [EVIL], "warnings": [EVIL]}
            test |= {"settings": {EVIL: EVIL}, "origins": {EVIL: EVIL}, "metrics": {EVIL: EVIL}}
            test["headline"] = {"name": EVIL, "value": 1, "unit": EVIL}
            test["accuracy"] = {"values": {EVIL: 1}, "judged": [{"ratio": 0.99, "limits": {EVIL: [1, None]}}]}

    page = changed(folder, poison)
    assert "script" not in page.tags
    assert page.words.count("<script>alert(1)</script>") > 20


def test_the_page_fetches_nothing_and_runs_nothing(everything: Path) -> None:
    folder = everything
    page = page_of(folder)
    assert {"script", "link", "img", "iframe", "object", "image"}.isdisjoint(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "action"):
            assert value.startswith("#") or (folder / value).is_file(), "only the logs beside it"
    text = (folder / "report.html").read_text("utf-8")
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert "@import" not in text
    assert "http" not in text


def test_identifiers_are_unique_and_references_lead_to_one(everything: Path) -> None:
    folder = everything
    page = page_of(folder)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 10
    referred = {value[1:] for name, value in page.attributes if name.endswith("href") and value[0] == "#"}
    referred |= set(re.findall(r"url\(#(\w+)\)", (folder / "report.html").read_text("utf-8")))
    assert referred <= set(ids)


def test_charts_follow_the_colours_of_the_page(benchmark_of: Make) -> None:
    folder = ran(benchmark_of(), "--scenario", "Server", "--mode", "performance")
    text = (folder / "report.html").read_text("utf-8")
    drawn = text[text.index("<svg") : text.rindex("</svg>")]
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawn)) == set()
    assert {"var(--line)", "var(--muted)", "var(--ink)", "var(--bad)"} <= set(re.findall(r"var\(--\w+\)", drawn))


def many(n: int) -> Records:
    """A Server test of n samples, with one late one."""
    rng = np.random.default_rng(1)
    due = np.cumsum(rng.exponential(1e6, n)).astype(np.int64)
    done = due + rng.lognormal(14, 0.5, n).astype(np.int64)
    done[n // 2] += 3_000_000_000
    return Records(due, due + 500, done, 1)


def test_a_million_samples_make_a_small_page(benchmark_of: Make) -> None:
    folder = ran(benchmark_of(), "--scenario", "Server", "--mode", "performance")
    records = many(1_000_000)
    columns.save(folder / "Server" / "performance", records)
    page = write_report(folder)
    assert page.stat().st_size < 150_000
    (late,) = np.flatnonzero(records.latencies_ns > 2_900_000_000)
    _, _, _, high = columns.spread_over_time(records.scheduled_ns, records.latencies_ns)
    assert high.max() == records.latencies_ns[late]


def test_fewer_points_say_the_same() -> None:
    records = many(20_000)
    at, low, median, high = columns.spread_over_time(records.scheduled_ns, records.latencies_ns, slices=10)
    assert len(at) == 10
    whole = records.latencies_ns
    assert (low.min(), high.max()) == (whole.min(), whole.max())
    assert low.max() < median.min()
    assert median.max() < high.min()
    values, shares = columns.distribution(np.sort(whole))
    assert shares[-1] == 1.0
    assert values[-1] == whole.max()
    assert np.mean(whole[:, None] <= values, axis=0) == pytest.approx(shares, abs=2 / len(whole))  # ties
    edges, rate = columns.rate_over_time(records.completed_ns, int(records.completed_ns.max()), 20)
    assert (rate * np.diff(edges)).sum() == pytest.approx(20_000)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_few_samples_can_be_drawn(n: int) -> None:
    due = np.arange(n, dtype=np.int64) * 1000
    drawn = charts.draw(Records(due, due, due + 7, 1), "x", charts.Judged(limit_ns=10))
    assert [c.title for c in drawn][:1] == ["Latency distribution"]
    assert len(drawn) == (3 if n > 1 else 2)


def test_queries_of_many_samples_and_tokens_are_drawn() -> None:
    due = np.arange(40, dtype=np.int64) * 1_000_000
    first = np.repeat(due, 8) + 1_000_000
    records = Records(due, due, first + 20_000_000, 8, first, np.full(320, 9))
    distribution, over_time, _, per_token = charts.draw(records, "x", charts.Judged(0.99, 0, 2_000_000, 200_000_000))
    assert distribution.note.endswith(
        "p99, which is judged; thin line: time to the first token; dashed: limit of 2 ms."
    )
    assert per_token.note.endswith("; dashed: limit of 200 ms.")
    assert per_token.title == "Time per output token"
    assert columns.time_per_token(records).tolist() == [2_500_000] * 320
    assert "first token" in distribution.note
    assert "var(--second)" in distribution.svg
    some = np.array([2 * 10**6] * 5 + [2 * 10**8] * 60 + [5 * 10**9])
    assert ">0.003</text>" in charts.draw_pair(some, some, "y").svg, "labels keep their digits"
    assert "40 slices" in over_time.note


def test_the_judged_percentile_is_marked(benchmark_of: Make) -> None:
    folder = ran(benchmark_of(), "--scenario", "SingleStream", "--mode", "performance")
    assert "large dot: p90, which is judged" in page_of(folder).words
    (test,) = record.read(folder).tests
    judged = {name: judged_of(replace(test, scenario=name)) for name in ("MultiStream", "Server", "Offline")}
    limit = test.settings["server_target_latency_ns"]
    assert judged == {
        "MultiStream": charts.Judged(0.99),
        "Server": charts.Judged(0.99, limit),
        "Offline": charts.Judged(),
    }
    tokens = {**test.settings, "use_token_latencies": True, "server_ttft_latency": 7, "server_tpot_latency": 8}
    assert judged_of(replace(test, scenario="Server", settings=tokens)) == charts.Judged(0.99, 0, 7, 8)


def test_token_latencies_have_columns_of_their_own() -> None:
    metrics = {"result_mean_latency_ns": 5_000_000, "result_first_token_mean_latency_ns": 2_000_000}
    metrics |= {"result_time_to_output_token_mean": 1_000_000, "result_90.00_percentile_latency_ns": 6_000_000}
    metrics |= {"result_time_per_output_token_90.00_percentile_ns": 1_500_000}
    headings, rows = latency_table(metrics)
    assert headings == ["latency", "first token", "per output token"]
    assert dict(rows)["mean"] == ["5.000", "2.000", "1.000"]
    assert dict(rows)["p90"] == ["6.000", "-", "1.500"]


@pytest.mark.parametrize("damage", ["missing", "cut off", "text", "lengths"])
def test_without_columns_the_page_says_why_there_are_no_charts(benchmark_of: Make, damage: str) -> None:
    folder = ran(benchmark_of(), "--scenario", "Server", "--mode", "performance")
    file = folder / "Server/performance/columns.npz"
    whole = file.read_bytes()
    file.unlink()
    if damage == "lengths":
        none = np.empty(0, np.int64)
        np.savez(file, scheduled_ns=none, issued_ns=none, completed_ns=np.ones(3, np.int64), samples_per_query=1)
    elif damage != "missing":
        file.write_bytes(whole[: len(whole) // 2] if damage == "cut off" else b"no zip file")
    (folder / "Server/performance/mlperf_log_detail.txt").unlink()
    assert invoke(benchmark_of(), ["report", str(folder)]) == 0
    words = page_of(folder).words
    assert f"No charts: {file} is {'not there' if damage == 'missing' else 'damaged'}" in words
    assert "run again" in words
    assert "Latencies in milliseconds" in words


def test_a_report_can_be_written_anew_in_another_place(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    ran(benchmark_of(), "--scenario", "Offline").rename("moved")
    before = Path("moved/report.html").read_text("utf-8")
    Path("moved/report.html").unlink()
    assert invoke(benchmark_of(), ["report", "moved"]) == 0
    assert "moved/report.html" in capsys.readouterr().out
    assert Path("moved/report.html").read_text("utf-8") == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"schema": 9}', "schema 9"),
        ('{"schema": 2, "tests": [1]}', "damaged"),
    ],
)
def test_a_folder_without_results_is_bad_input(
    benchmark_of: Make, text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad").mkdir()
    if text is not None:
        Path("bad/results.json").write_text(text)
    with pytest.raises(InputError, match=re.escape("bad/results.json")):
        write_report(Path("bad"))
    assert invoke(benchmark_of(), ["report", "bad"]) == 2
    assert message in capsys.readouterr().err


def test_results_of_before_settings_were_kept_can_be_read(benchmark_of: Make) -> None:
    folder = ran(benchmark_of(), "--scenario", "Offline")

    def age(data: dict[str, Any]) -> None:
        for key in ("title", "profile_summary", "options"):
            del data[key]
        for test in data["tests"]:
            del test["settings"], test["origins"]

    assert "Not in results.json" in changed(folder, age).words


def test_help_imports_neither_the_plots_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from loadgen.harness.benchmark import Benchmark\n"
        "from loadgen.harness.cli import invoke\n"
        "b = Benchmark('x', 'X', 'bert', (), '', {}, '', '', {})\n"
        "assert [invoke(b, [*c, '--help']) for c in ([], ['report'], ['compare'])] == [0, 0, 0]\n"
        "print(sorted({'numpy', 'matplotlib', 'jinja2', 'rich'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.endswith("[]\n"), shown.stdout + shown.stderr
    assert "--fail-above PERCENT" in shown.stdout
