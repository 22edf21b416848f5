"""A backend and a system of one's own, as docs/fork.md shows them: a run takes them, and scores as with ours."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench_bert.benchmark import BENCHMARK
from loadgen.harness.benchmark import BackendSpec
from loadgen.harness.cli import invoke

HERE = Path(__file__).parent
BACKEND = {"backends": {"own": BackendSpec(name="own_backend:Backend", extra="onnxruntime")}}
SYSTEM = {"system": "own_system:System"}


@pytest.fixture(autouse=True)
def _can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)


def run(own: dict[str, Any], mini: Path, output: Path, *options: str) -> int:
    arguments = ["run", "--mode", "accuracy", "--threads", "1", "--data", str(mini), "--output", str(output)]
    return invoke(replace(BENCHMARK, **own), [*arguments, *options])


@pytest.mark.parametrize(
    ("own", "options", "count"),
    [
        (BACKEND, ["--scenario", "Offline"], 1),
        (BACKEND | SYSTEM, ["--qps", "600"], 3),
        ({}, ["--backend", "own_backend:Backend", "--scenario", "Offline"], 1),
    ],
    ids=["backend", "both", "by its name alone"],
)
def test_it_meets_the_target(own: dict[str, Any], options: list[str], count: int, mini: Path, tmp_path: Path) -> None:
    assert run(own, mini, tmp_path, *options) == 0
    tests = json.loads((tmp_path / "results.json").read_text())["tests"]
    f1 = [test["accuracy"]["values"]["f1"] for test in tests]
    assert f1 == pytest.approx([BENCHMARK.profiles["mini"].reference["f1"]] * count, abs=0.01)


def fail(*_: Any) -> None:
    raise RuntimeError("the device is on fire")


@pytest.mark.parametrize("broken", ["own_backend.Backend.submit", "own_system.System.issue"])
def test_a_failure_of_it_ends_the_run(
    broken: str, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(broken, fail)
    assert run(BACKEND | SYSTEM, mini, tmp_path) == 3
    assert "the device is on fire" in capfd.readouterr().out


def test_the_backend_has_ten_lines() -> None:
    source = (HERE / "own_backend.py").read_text()
    (own,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    assert len([line for line in source.splitlines()[own.lineno :] if line.strip()]) == 10


def test_types_are_as_strict_as_in_the_package() -> None:
    command = [sys.executable, "-m", "mypy", "--config-file", str(HERE.parents[2] / "pyproject.toml")]
    checked = [*command, "tests/own_backend.py", "tests/own_system.py"]
    done = subprocess.run(checked, cwd=HERE.parent, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
