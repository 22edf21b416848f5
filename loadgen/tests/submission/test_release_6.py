"""The tree of rounds v6.0 and v6.1, which has neither measurements/ nor compliance/: built, checked, told apart.

`--checker-6 FOLDER`: tools/submission of the official suite's main branch, of August 2026 or later (it needs pyyaml).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from loadgen.harness.submission import main
from loadgen.rules import load_round
from loadgen.submission import table, workbook
from loadgen.submission.check import check

RESULT = "closed/Org/results/box/resnet/SingleStream"
LLAMA = "closed/Org/results/rack/llama2-70b-99.9"


@pytest.fixture(scope="module")
def latest(tmp_path_factory: pytest.TempPathFactory, code: Path, make: ModuleType) -> Path:
    """ResNet on edge by v6.1, its MultiStream and Offline inferred; then Llama in a datacenter."""
    place, round_ = tmp_path_factory.mktemp("latest"), load_round("v6.1")
    for model, kind, system, scenarios in (
        ("resnet50", "edge", "box", ["SingleStream"]),
        ("llama2-70b", "datacenter", "rack", ["Server", "Offline"]),
    ):
        ran = make.run_folder(place / model, model, scenarios, round_)
        make.built(place / "tree", [ran], kind, system, code)
    return place / "tree"


def test_what_belongs_to_a_result_lies_in_its_folder(latest: Path) -> None:
    above = latest / "closed" / "Org"
    assert {place.name for place in above.iterdir()} == {"systems", "src", "results"}
    assert {place.name for place in (above / "src").iterdir()} == {"resnet", "llama2-70b-99.9"}
    assert {place.name for place in (latest / RESULT).iterdir()} == {
        *("measurements.json", "user.conf", "README.md", "performance", "accuracy", "TEST01", "TEST04")
    }
    assert (latest / RESULT / "TEST01" / "verify_accuracy.txt").is_file()


def test_the_tree_passes_by_its_round_only(latest: Path) -> None:
    by_its_own = check(latest, "v6.1")
    assert (by_its_own.findings, len(by_its_own.rows)) == ([], 5)
    assert {"measurements-missing", "unknown-folder"} < {one.rule for one in check(latest, "v5.1").findings}
    (left, *_) = (workbook._left(line, "v6.1") for line in table.lines(by_its_own))
    assert left[-1] == '=HYPERLINK("closed/Org/src","code")'


@pytest.mark.parametrize(
    ("gone", "rule"),
    [
        (f"{RESULT}/measurements.json", "measurements-json-missing"),
        (f"{RESULT}/user.conf", "measurements-file-missing"),
        (f"{RESULT}/TEST04", "compliance-test-missing"),
        (f"{RESULT}/TEST01/verify_accuracy.txt", "compliance-answers-missing"),
        ("closed/Org/src/resnet", "code-missing"),
    ],
)
def test_what_is_missing_is_found(latest: Path, copied: Callable[[Path], Path], gone: str, rule: str) -> None:
    tree = copied(latest)
    place = tree / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert {finding.rule for finding in check(tree, "v6.1").findings} == {rule}


def test_one_of_some_scenarios_is_asked_for(latest: Path, copied: Callable[[Path], Path]) -> None:
    tree = copied(latest)
    shutil.rmtree(tree / LLAMA / "Server")
    (finding,) = check(tree, "v6.1").findings
    assert (finding.rule, finding.path) == ("scenario-missing", LLAMA)
    assert "Interactive or Server" in str(finding)
    (tree / LLAMA / "interactive").mkdir()  # the official checker takes lower case too
    assert "scenario-missing" not in {one.rule for one in check(tree, "v6.1").findings}


@pytest.mark.parametrize(("part", "results"), [(f"{RESULT}/TEST01", 1), ("closed/Org/src/resnet", 3)])
def test_a_part_is_checked_for_itself(latest: Path, part: str, results: int) -> None:
    assert len(check(latest / part, "v6.1").rows) == results


def test_build_names_the_round_to_check_by(
    latest: Path, code: Path, make: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {**make.TOLD, **make.WEIGHTS, "system_type": "edge"}
    words = ["submission", "build", str(latest.parent / "resnet50"), "--output", str(tmp_path), "--submitter", "Org"]
    words += ["--system", "box", "--code", str(code), *(f"--set={name}={value}" for name, value in told.items())]
    assert main(words) == 0
    hint = capsys.readouterr().err.splitlines()[-1].split("python -m loadgen ")[1]
    assert main(hint.split()) == 0


@pytest.mark.parametrize(
    ("gone", "results"), [("", 5), (f"{RESULT}/measurements.json", 4), (f"{LLAMA}/Server", 3), ("closed/Org/src", 0)]
)
def test_the_official_checker_says_so_too(
    request: pytest.FixtureRequest, latest: Path, tmp_path: Path, gone: str, results: int
) -> None:
    checker = request.config.getoption("--checker-6")
    if checker is None:
        pytest.skip("give the official checker by --checker-6 FOLDER")
    tree = Path(shutil.copytree(latest, tmp_path / "tree"))
    if gone:
        shutil.rmtree(tree / gone) if (tree / gone).is_dir() else (tree / gone).unlink()
    words = ["-m", "submission_checker.main", "--input", str(tree), "--version", "v6.1", "--submission-exceptions"]
    words += ["--csv", str(tmp_path / "summary.csv")]
    environment = {**os.environ, "PYTHONPATH": str(checker.resolve())}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == bool(gone), done.stderr[-2000:]
    assert len((tmp_path / "summary.csv").read_text().splitlines()) == 1 + results
