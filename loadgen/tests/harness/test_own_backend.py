"""`--backend module:Class` takes a vendor's class as it is, and says in words what is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.harness.cli import invoke

Make = Callable[..., Benchmark]
RUN = ["--scenario", "Offline", "--mode", "accuracy", "--output", "out"]


@pytest.fixture(autouse=True)
def _a_vendors_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark_of: Make) -> None:
    benchmark_of()  # makes fake_bench
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "of_a_vendor.py").write_text("from fake_bench import Squares as Mine\n")
    (tmp_path / "of_nothing.py").write_text("import a_driver_that_is_not\n")


def test_a_class_of_ones_own_is_measured(benchmark_of: Make) -> None:
    assert invoke(benchmark_of(), [*RUN, "--backend", "of_a_vendor:Mine"]) == 0
    data = json.loads(Path("out/results.json").read_text())
    assert data["options"]["backend"] == "of_a_vendor:Mine"
    assert data["tests"][0]["valid"]


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("of_nobody:Mine", "--backend of_nobody:Mine: no module 'of_nobody' is found"),
        ("of_nobody.there:Mine", "no module 'of_nobody.there' is found"),
        ("of_a_vendor:", "or no class is named: write module:Class"),
        (":Mine", "or no class is named: write module:Class"),
        ("of_a_vendor:Yours", "of_a_vendor has no 'Yours'; its classes are Mine"),
        ("of_nothing:Mine", "needs the package a_driver_that_is_not, which is not installed"),
    ],
)
def test_what_is_not_there_is_said(
    backend: str, said: str, benchmark_of: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(benchmark_of(), [*RUN, "--backend", backend]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_files_are_made_ahead_for_it(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the data: which weights it reads, the class says when it loads."""
    made = benchmark_of()
    synthetic = Profile("large", "fake_bench:prepare", weights="fake_bench:weigh")
    made = replace(made, profiles={**made.profiles, "synthetic": synthetic})
    assert invoke(made, ["synthesize", "--data", "big", "--backend", "of_a_vendor:Mine"]) == 0
    assert "big: ready" in capsys.readouterr().out


def test_so_does_a_worker_in_a_process(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    Path("of_another.py").write_text("class Mine: ...\n")
    assert invoke(benchmark_of(), [*RUN, "--backend", "of_another:Yours", "--worker-kind", "process"]) == 2
    assert "of_another has no class 'Yours' here" in capsys.readouterr().err
