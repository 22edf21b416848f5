"""Each command's help lists the exit codes that it can end with: every one of them is reached here, and no other is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from loadgen.harness.assets.asset import Asset
from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.harness.cli import command, invoke
from loadgen.harness.exits import EXITS
from loadgen.settings import Scenario

Make = Callable[..., Benchmark]
OFFLINE = ("--scenario", "Offline", "--mode", "accuracy")
COMPLY = ("comply", "--scenario", "Server", "--tests", "TEST01")
PAIRS = ("speed", "--samples", "2", "--pairs", "1")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def squares(benchmark_of: Make, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """With what the toy lacks: files to fetch and to synthesise, a training, a rate that any machine keeps."""
    monkeypatch.setattr("fake_bench.ASSETS", [Asset("data/list.txt", "", "CC0", md5="0" * 32)], raising=False)
    monkeypatch.setattr("fake_bench.train", lambda words: words and 1 / 0, raising=False)
    made = benchmark_of()
    mini = made.profiles["mini"]
    server = {**mini.settings[Scenario.Server], "server_target_qps": 1000.0}
    profiles = {
        "mini": replace(mini, settings={**mini.settings, Scenario.Server: server}),
        "full": Profile("official files", "fake_bench:prepare", is_official=True, assets="fake_bench:ASSETS"),
        "synthetic": Profile("large", "fake_bench:prepare"),
    }
    return replace(made, profiles=profiles, train="fake_bench:train")


def listed(help_text: str) -> set[int]:
    codes = help_text.split("Exit codes:")[1]
    return {int(code) for code in re.findall(r"^ +(\d+)  ", codes, re.MULTILINE)}


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def said(benchmark: Benchmark, name: str, capsys: pytest.CaptureFixture[str]) -> set[int]:
    assert invoke(benchmark, [*name.split(), "--help"]) == 0
    return listed(capsys.readouterr().out)


def ran(benchmark: Benchmark, *words: str) -> str:
    assert invoke(benchmark, ["run", *OFFLINE, "--output", "out", "--quiet", *words]) == 0
    return "out"


def worse(folder: str, into: str) -> None:
    file = Path(folder, "results.json")
    data = json.loads(file.read_text())
    data["tests"][0]["valid"] = False
    Path(into).mkdir()
    Path(into, "results.json").write_text(json.dumps(data))


def test_every_command_has_its_codes(squares: Benchmark) -> None:
    def names(group: click.Group, above: str = "") -> set[str]:
        found = {f"{above}{name}" for name in group.commands}
        for name, below in group.commands.items():
            found |= names(below, f"{name} ") if isinstance(below, click.Group) else set()
        return found

    assert names(command(squares)) == set(EXITS)


@pytest.mark.parametrize("name", ["info", "doctor", "report", "submission system", "submission rules"])
def test_commands_without_verdict_list_two(squares: Benchmark, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(squares, name, capsys) == {0, 2}
    right = {"report": [ran(squares)], "doctor": ["--data", "here"]}.get(name, [])
    assert invoke(squares, [*name.split(), *right]) == 0
    wrong = {"report": "nothing-here"}.get(name, "--strength")
    assert invoke(squares, [*name.split(), wrong]) == 2


def test_run(
    squares: Benchmark, benchmark_of: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [
        invoke(squares, ["run", *OFFLINE]),
        invoke(benchmark_of(reference=102.0), ["run", *OFFLINE]),
        invoke(squares, ["run", "--batch", "0"]),
        invoke(benchmark_of(bad=13), ["run", *OFFLINE]),
    ]
    benchmark_of()  # the one that fails on 13 is gone
    monkeypatch.setattr("fake_bench.score", interrupt)
    ends.append(invoke(squares, ["run", *OFFLINE]))
    assert ends == [0, 1, 2, 3, 130]
    capsys.readouterr()
    assert said(squares, "run", capsys) == set(ends)


def test_comply(
    squares: Benchmark, benchmark_of: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [invoke(squares, [*COMPLY]), invoke(squares, [*COMPLY, "--batch", "0"])]
    benchmark_of(bad=13)
    ends.append(invoke(squares, [*COMPLY]))
    mini = squares.profiles["mini"]
    missed = replace(squares, profiles={"mini": replace(mini, reference={"f1": 102.0})})
    benchmark_of()
    ends.append(invoke(missed, [*COMPLY]))
    monkeypatch.setattr("fake_bench.score", interrupt)
    ends.append(invoke(squares, [*COMPLY]))
    assert ends == [0, 2, 3, 1, 130]
    capsys.readouterr()
    assert said(squares, "comply", capsys) == set(ends)


def test_accuracy(squares: Benchmark, benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    log = f"{ran(squares)}/Offline/accuracy"
    words = ["accuracy", log]
    ends = [invoke(squares, words), invoke(benchmark_of(reference=102.0), words), invoke(squares, ["accuracy", "no"])]
    assert ends == [0, 1, 2]
    capsys.readouterr()
    assert said(squares, "accuracy", capsys) == set(ends)


def test_fetch(squares: Benchmark, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("from/data").mkdir(parents=True)
    Path("from/data/list.txt").write_text("1 2 3")
    words = ["fetch", "--data", "to", "--from", "from"]
    ends = [invoke(squares, words)]
    monkeypatch.setattr("fake_bench.ASSETS", [Asset("data/list.txt", "", "CC0")])
    with monkeypatch.context() as patched:
        patched.setattr("loadgen.harness.assets.fetch.copy", interrupt)
        ends.append(invoke(squares, words))
    ends.append(invoke(squares, words))
    assert ends == [2, 130, 0]
    capsys.readouterr()
    assert said(squares, "fetch", capsys) == set(ends)


def test_synthesize(squares: Benchmark, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ends = [invoke(squares, ["synthesize", "--data", "big"]), invoke(squares, ["synthesize", "--backend", "tvm"])]
    monkeypatch.setattr("fake_bench.prepare", interrupt)
    ends.append(invoke(squares, ["synthesize", "--data", "big"]))
    assert ends == [0, 2, 130]
    capsys.readouterr()
    assert said(squares, "synthesize", capsys) == set(ends)


def test_train_mini(squares: Benchmark, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ends = [
        invoke(squares, ["train-mini"]),
        invoke(replace(squares, train=""), ["train-mini"]),
        invoke(squares, ["train-mini", "--steps", "3"]),
    ]
    monkeypatch.setattr("fake_bench.train", interrupt)
    ends.append(invoke(squares, ["train-mini"]))
    assert ends == [0, 2, 3, 130]
    capsys.readouterr()
    assert said(squares, "train-mini", capsys) == set(ends)


def test_speed(
    squares: Benchmark, benchmark_of: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [invoke(squares, [*PAIRS]), invoke(squares, [*PAIRS, "--batch", "0"])]
    monkeypatch.setattr("fake_bench.Squares.bad", 49)
    ends.append(invoke(squares, [*PAIRS]))
    monkeypatch.setattr("fake_bench.Squares.submit", interrupt)
    ends.append(invoke(squares, [*PAIRS]))
    assert ends == [0, 2, 3, 130]
    capsys.readouterr()
    assert said(squares, "speed", capsys) == set(ends)


def test_compare(squares: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    worse(ran(squares), "b")
    words = ["compare", "out", "b", "--fail-above", "5"]
    ends = [invoke(squares, words[:3]), invoke(squares, words), invoke(squares, ["compare", "out", "none"])]
    assert ends == [0, 1, 2]
    capsys.readouterr()
    assert said(squares, "compare", capsys) == set(ends)


def test_an_interrupted_sweep_writes_its_page(squares: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadgen.harness.speed.sweep._Bench.server", interrupt)
    words = ["speed", "--sweep", "--duration", "0.1", "--html", "sweep.html"]
    assert invoke(squares, words) == 130
    assert "SingleStream" in Path("sweep.html").read_text()
