"""The `accuracy` command on logs of other forms: of a part of the samples, of other number formats."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadgen.contracts import InputError, Scoring
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.plan import Request, resolve
from loadgen.harness.report.screen import console
from loadgen.harness.scoring import open_dataset, score_log
from loadgen.logs import read_accuracy

Make = Callable[..., Benchmark]
FOLLOWS = ("dtype", "transposed", "max_examples", "partial")


@pytest.fixture
def log(benchmark_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a whole accuracy run of 50 samples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert invoke(benchmark_of(), ["--mode", "accuracy", "--scenario", "Offline", "--output", "out", "--quiet"]) == 0
    return tmp_path / "out" / "Offline" / "accuracy" / "mlperf_log_accuracy.json"


def rows(log: Path) -> list[dict[str, Any]]:
    return [{"seq_id": e.seq_id, "qsl_idx": e.qsl_idx, "data": e.data.hex()} for e in read_accuracy(log)]


def test_a_part_is_scored_with_a_label(benchmark_of: Make, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = '{"exact_match": 0.0, "f1": 40.0}\n'  # of the official script; this metric divides by all samples
    log.with_name("accuracy.txt").unlink()
    log.write_text(json.dumps(rows(log)[:20]))
    benchmark = replace(benchmark_of(), scoring=FOLLOWS)
    assert invoke(benchmark, ["accuracy", str(log)]) == 2
    assert "30 of 50 samples have no answer, first sample" in capsys.readouterr().err
    assert invoke(benchmark, ["accuracy", str(log), "--partial"]) == 0
    said = capsys.readouterr().out
    assert "not a result: scored, with 20 of 50 samples answered" in said
    assert line in said
    assert "met" not in said
    assert not log.with_name("accuracy.txt").exists()
    assert log.with_name("accuracy-partial.txt").read_text() == line


def test_of_repeated_samples_of_a_part_the_first_counts(benchmark_of: Make, log: Path) -> None:
    some = rows(log)[:20]
    log.write_text(json.dumps([*some, *({**row, "data": "FF" * 4} for row in some)]))
    benchmark = replace(benchmark_of(), scoring=FOLLOWS)
    assert invoke(benchmark, ["accuracy", str(log), "--partial"]) == 0
    assert '"f1": 40.0' in log.with_name("accuracy-partial.txt").read_text()


def test_a_log_of_no_sample_is_no_part(benchmark_of: Make, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_text("[]")
    assert invoke(replace(benchmark_of(), scoring=FOLLOWS), ["accuracy", str(log), "--partial"]) == 2
    assert "50 of 50 samples have no answer" in capsys.readouterr().err


def test_the_metric_gets_what_is_told(benchmark_of: Make, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Scoring] = []

    def score(entries: Any, dataset: Any, at: Scoring) -> dict[str, float]:
        told.append(at)
        return {"exact_match": 0.0, "f1": 100.0}

    monkeypatch.setattr("fake_bench.score", score)
    benchmark = replace(benchmark_of(), scoring=FOLLOWS)
    assert invoke(benchmark, ["accuracy", str(log)]) == 0
    options = ["--dtype", "int16", "--transposed", "--max-examples", "3", "--quiet"]
    assert invoke(benchmark, ["accuracy", str(log), *options]) == 0
    assert [(at.dtype, at.transposed, at.max_examples) for at in told] == [("", False, None), ("int16", True, 3)]


@pytest.mark.parametrize("option", [["--partial"], ["--dtype", "int16"], ["--transposed"], ["--max-examples", "3"]])
def test_what_a_metric_does_not_follow_is_refused(
    option: list[str], benchmark_of: Make, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else its score would be another one than was asked for."""
    assert invoke(benchmark_of(), ["accuracy", str(log), *option]) == 2
    assert f"{option[0]}: the metric of squares follows none of its kind" in capsys.readouterr().err


def test_a_log_needs_its_data_alone(
    benchmark_of: Make, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of official files the weights may be missing; data that are wrong are named, and not the weights."""
    made = benchmark_of()
    full = replace(made.profiles["mini"], is_official=True, prepare="fake_bench:no_weights")
    made = replace(made, profiles={**made.profiles, "full": full})

    def no_weights(folder: Path) -> None:
        raise InputError("official files are missing: model/weights")

    monkeypatch.setattr("fake_bench.no_weights", no_weights, raising=False)
    words = ["accuracy", str(log.parent), "--profile", "full", "--data", "full"]
    assert invoke(made, words) == 0

    def damaged(folder: Path, **options: Any) -> None:
        raise InputError(f"{folder}/data/numbers: not numbers")

    monkeypatch.setattr("fake_bench.Numbers", damaged)
    assert invoke(made, words) == 2
    assert "official files are missing" in capsys.readouterr().err, "there are no data either"
    Path("full/data").mkdir(parents=True)
    Path("full/data/numbers").touch()
    assert invoke(made, words) == 2
    assert "full/data/numbers: not numbers" in capsys.readouterr().err


def test_a_log_of_another_level_is_pointed_at(
    benchmark_of: Make, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("out", "out/Offline"):
        assert invoke(benchmark_of(), ["accuracy", place]) == 2
        assert "give the folder of one test's logs, such as out/Offline/accuracy" in capsys.readouterr().err
    for bad in (b"", b"\xff\xfe", b"{}", b'[{"seq_id": 0}]'):
        log.write_bytes(bad)
        assert invoke(benchmark_of(), ["accuracy", "out/Offline/accuracy"]) == 2
        said = capsys.readouterr().err
        assert "out/Offline/accuracy/mlperf_log_accuracy.json:1: " in said
        assert len(said.splitlines()) == 1


def test_a_score_that_takes_long_says_how_far_it_is(
    benchmark_of: Make, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ROUGE of Llama's 24,576 answers takes a quarter of an hour."""

    def slow(entries: Any, dataset: Any, at: Any) -> dict[str, float]:
        for _ in entries:
            time.sleep(0.03)
        return {"f1": 100.0, "exact_match": 0.0}

    monkeypatch.setattr("loadgen.harness.report.screen._PLAIN_PERIOD_S", 0.1)
    monkeypatch.setattr("fake_bench.score", slow)
    assert invoke(benchmark_of(), ["accuracy", str(log)]) == 0
    found = re.findall(r"scoring: (\d+) of 50 samples  ([\d.]+)/s  ETA \d+ s", capsys.readouterr().out)
    counts = [int(count) for count, _ in found]
    assert len(counts) >= 2
    assert counts == sorted(set(counts))
    assert 0 < counts[0] < counts[-1] < 50
    assert all(0 < float(rate) < 34 for _, rate in found)
    assert invoke(benchmark_of(), ["accuracy", str(log), "--quiet"]) == 0
    assert "scoring" not in capsys.readouterr().out


def test_a_metric_is_told_which_answers_the_round_shows(
    benchmark_of: Make, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = resolve(benchmark_of(), Request())
    plan = replace(plan, rules=replace(plan.rules, images=(3, 7)))
    told: list[Scoring] = []

    def score(entries: Any, dataset: Any, at: Scoring) -> dict[str, float]:
        told.append(at)
        return {"exact_match": 0.0, "f1": 100.0}

    monkeypatch.setattr(plan.imported(plan.benchmark.accuracy, "the accuracy metric"), "score", score)
    score_log(plan, open_dataset(plan), log, console(quiet=True))
    assert told[0].reviewed == (3, 7)
