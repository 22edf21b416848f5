"""Where results are from: the commit, and the files with their checksums."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.report import provenance

Make = Callable[..., Benchmark]


@pytest.fixture
def folder(benchmark_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = ["--scenario", "Offline", "--mode", "accuracy", "--output", "out", "--quiet"]
    assert invoke(benchmark_of(), options) == 0
    return Path("out")


def test_logs_and_commit_stand_in_the_report(folder: Path) -> None:
    page, log = (folder / "report.html").read_text(), folder / "Offline" / "accuracy" / "mlperf_log_accuracy.json"
    assert f"<code>{hashlib.sha256(log.read_bytes()).hexdigest()}</code>" in page
    assert '<a href="Offline/accuracy/mlperf_log_accuracy.json">' in page
    assert f"{log.stat().st_size:,}</td>" in page
    commit = json.loads((folder / "results.json").read_text())["machine"]["commit"]
    assert commit == provenance.commit("loadgen")
    assert commit in page


def test_results_of_another_commit_or_other_files_do_not_mix(
    folder: Path, benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--scenario", "Server", "--mode", "accuracy", "--output", "out", "--quiet"]
    with monkeypatch.context() as patched:
        patched.setattr(provenance, "commit", lambda package: "another")
        assert invoke(benchmark_of(), more) == 2
    assert "there, another now): choose another folder by --output" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(provenance, "files", lambda plan: {"model/numbers.bin": "sha256 12"})
        assert invoke(benchmark_of(), more) == 2
    assert "(model/numbers.bin - there, sha256 12 now)" in capsys.readouterr().err
    assert invoke(benchmark_of(), more) == 0


def test_a_commit_is_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "repository" / "bench_of_a_test"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    assert provenance.commit("bench_of_a_test") == ""
    assert provenance.commit("a_package_that_is_not") == ""

    def git(*words: str) -> str:
        name = ("-c", "user.name=a", "-c", "user.email=a@localhost")
        return subprocess.run(["git", *name, *words], cwd=package, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "Begin")
    assert provenance.commit("bench_of_a_test") == git("rev-parse", "HEAD").strip()
    (package / "__init__.py").write_text("x = 1\n")
    assert provenance.commit("bench_of_a_test").endswith("-dirty")
    monkeypatch.setenv("INFERENCE_BENCH_COMMIT", "unknown")  # as an image that was built without saying it
    assert provenance.commit("bench_of_a_test").endswith("-dirty")
    monkeypatch.setenv("INFERENCE_BENCH_COMMIT", "abc")
    assert provenance.commit("bench_of_a_test") == "abc"
