"""The commands `synthesize` and `train-mini` as a user meets them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.contracts import InputError
from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.harness.cli import invoke

Make = Callable[..., Benchmark]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_synthesize_says_what_it_wrote(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(folder: Path) -> None:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "model").mkdir(exist_ok=True)
        for number in range(11):
            (folder / "data" / f"{number}.JPEG").write_bytes(bytes(100_000))

    def weigh(file: Path) -> None:
        if file.name == "b.bin":
            raise InputError("b.bin is made with the package beta, which is not installed")
        file.write_bytes(bytes(3_000_000))

    monkeypatch.setattr("fake_bench.make", make, raising=False)
    monkeypatch.setattr("fake_bench.weigh", weigh, raising=False)
    made = benchmark_of()
    specs = {
        "numpy": replace(made.backends["numpy"], file="a.bin"),
        "missing": replace(made.backends["missing"], file="b.bin"),
    }
    profiles = {**made.profiles, "synthetic": Profile("large", "fake_bench:make", weights="fake_bench:weigh")}
    made = replace(made, profiles=profiles, backends=specs)
    assert invoke(made, ["synthesize", "--data", "big"]) == 0
    printed = capsys.readouterr().out
    assert "model/a.bin  3.0 MB  written" in printed
    assert "b.bin: left out (b.bin is made with the package beta, which is not installed)" in printed
    assert "data  11 files, 1.1 MB  written" in printed, "not a line for each of thousands"
    assert "JPEG" not in printed
    assert invoke(made, ["synthesize", "--data", "big", "--backend", "numpy"]) == 0
    assert "model/a.bin  3.0 MB  was there" in capsys.readouterr().out
    assert invoke(made, ["synthesize", "--data", "big", "--backend", "missing"]) == 2
    assert "package beta" in capsys.readouterr().err
    assert invoke(made, ["synthesize", "--backend", "tvm"]) == 2


def test_train_mini_hands_its_words_on(benchmark_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[list[str]] = []
    monkeypatch.setattr("fake_bench.train", words.append, raising=False)
    made = replace(benchmark_of(), train="fake_bench:train")
    assert invoke(made, ["train-mini", "--output", "w.npz", "--steps=9", "--fast"]) == 0
    assert invoke(made, ["train-mini", "--", "--help"]) == 0
    assert words == [["--output", "w.npz", "--steps=9", "--fast"], ["--help"]]


def test_a_training_s_own_usage_error_is_exit_code_2(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser(prog="train")
    monkeypatch.setattr("fake_bench.train", parser.parse_args, raising=False)
    made = replace(benchmark_of(), train="fake_bench:train")
    assert invoke(made, ["train-mini", "--nonsense"]) == 2
    assert invoke(made, ["train-mini", "--", "--help"]) == 0
    assert "usage: train" in capsys.readouterr().out
