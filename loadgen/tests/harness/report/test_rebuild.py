"""`report FOLDER` makes again what was lost, from what each test left in its own folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.report import rebuild, record

Make = Callable[..., Benchmark]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test puts its run, for the others to copy."""
    return tmp_path_factory.mktemp("made") / "out"


@pytest.fixture
def folder(benchmark_of: Make, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a run of two scenarios, each in both modes, `out` in the present folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if not made.is_dir():
        options = ["--scenario", "Offline", "--scenario", "Server", "--output", str(made), "--quiet"]
        assert invoke(benchmark_of(), options) == 0
    shutil.copytree(made, "out")
    return Path("out")


def reported(benchmark: Benchmark, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says on stderr; the page and the table are there again."""
    for name in ("report.html", "results.csv"):
        (folder / name).unlink(missing_ok=True)
    capsys.readouterr()
    assert invoke(benchmark, ["report", str(folder)]) == 0
    assert (folder / "report.html").is_file()
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + len(record.read(folder).tests)
    return capsys.readouterr().err


@pytest.mark.parametrize("damage", ["gone", "empty", "cut off", "no JSON", "no fields", "not UTF-8"])
def test_results_are_made_again_from_the_tests(damage: str, folder: Path) -> None:
    file = folder / "results.json"
    whole = file.read_bytes()
    spoilt = {"empty": b"", "cut off": whole[: len(whole) // 2], "no JSON": b"{", "not UTF-8": b"\xff\xfe\x00"}
    file.unlink()
    if damage != "gone":
        file.write_bytes(spoilt.get(damage, b'{"schema": 2, "tests": [{}]}'))
    assert "made again from the tests' own files: " in rebuild.mended(folder)
    assert json.loads(file.read_bytes()) == json.loads(whole)
    assert (folder / "results.json.damaged").is_file() == (damage != "gone")
    assert rebuild.mended(folder) == "", "nothing is to be done a second time"


def test_loadgens_results_are_enough(benchmark_of: Make, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a kill before any test was recorded: no score and no settings, and the page says so."""
    for file in (folder / "results.json", *folder.glob("*/*/test.json")):
        file.unlink()
    said = reported(benchmark_of(), folder, capsys)
    assert "results.json cannot be read (No such file or directory); made again" in said
    run = record.read(folder)
    assert (run.benchmark, run.title) == ("squares", "Squares")
    assert run.shortfalls == ("what was measured on which files and settings was not recorded",)
    found = {(test.scenario, test.kind): test for test in run.tests}
    assert len(found) == 4
    assert found["Server", "performance"].valid
    assert not found["Server", "accuracy"].valid
    assert "the command `accuracy out/Server/accuracy` does it" in found["Server", "accuracy"].reasons[0]
    assert "Latency distribution" in (folder / "report.html").read_text()


def test_a_test_that_ended_before_it_was_recorded_joins_the_others(folder: Path) -> None:
    file = folder / "results.json"
    data = json.loads(file.read_text())
    lost = data["tests"].pop()
    file.write_text(json.dumps(data))
    (folder / lost["scenario"] / "accuracy" / "test.json").unlink()
    said = rebuild.mended(folder)
    assert f"lacked tests that had ended; made again from the tests' own files: {lost['scenario']} Acc" in said
    assert len(record.read(folder).tests) == 4


def test_damaged_files_of_a_test_are_passed_over(folder: Path) -> None:
    (folder / "results.json").unlink()
    (folder / "Server/accuracy/test.json").write_bytes(b"\xff{")
    (folder / "Server/accuracy/result.json").write_text('{"scenario": 3}')
    (folder / "Offline/accuracy/test.json").write_text("[]")
    assert rebuild.mended(folder)
    assert [(test.scenario, test.kind) for test in record.read(folder).tests] == [
        ("Offline", "performance"),
        ("Server", "performance"),
        ("Offline", "accuracy"),
    ]


def test_a_test_that_was_begun_again_is_not_the_old_one(
    benchmark_of: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("loadgen.harness.run.run", killed)
        with pytest.raises(SystemExit):
            invoke(benchmark_of(), ["--scenario", "Server", "--mode", "performance", "--output", "out"])
    assert rebuild.mended(folder) == ""
    assert ("Server", "performance") not in {(test.scenario, test.kind) for test in record.read(folder).tests}


def test_a_lost_run_is_resumed_once_it_is_made_again(
    benchmark_of: Make, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "Server" / "accuracy")
    for file in folder.glob("*/*/test.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "directory": str(Path.cwd())}))
    (folder / "results.json").unlink()
    assert invoke(benchmark_of(), ["run", "--resume", "out"]) == 2
    assert "the command `report out` makes it again" in capsys.readouterr().err
    assert rebuild.mended(folder)
    assert invoke(benchmark_of(), ["run", "--resume", "out"]) == 0
    assert len(record.read(folder).tests) == 4


@pytest.mark.parametrize("command", [["report"], ["compare", "out"], ["run", "--resume"]])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("out/Server", "the folder of the run is {folder}"),
        ("out/Server/accuracy", "the folder of the run is {folder}"),
        ("out/results.csv", "the folder of the run is out"),
        ("outer", "the folder of the run is outer/out"),
        ("nothing", "give the output folder of a run"),
        ("file", "give the output folder of a run"),
    ],
)
def test_a_folder_of_another_level_names_the_right_one(
    command: list[str], place: str, said: str, benchmark_of: Make, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_bytes(b"\xff")
    shutil.copytree("out", "outer/out") if place == "outer" else None
    assert invoke(benchmark_of(), [*command, place]) == 2
    assert capsys.readouterr().err.strip().endswith(said.format(folder=folder.absolute()))
