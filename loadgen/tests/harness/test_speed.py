"""The speed command: ratios and sweeps on a model that is as fast as it says."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.speed import sweep
from loadgen.harness.speed.pairs import Kept
from loadgen.harness.speed.roofline import core_gflops, gpu_tflops, limit
from loadgen.results import Result
from loadgen.run import run
from loadgen.settings import TestSettings

Make = Callable[..., Benchmark]


@pytest.fixture
def slow(benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Benchmark:
    """A batch takes 5 ms, however large."""
    made = benchmark_of()
    import fake_bench  # type: ignore[import-not-found]

    submit = fake_bench.Squares.submit

    def later(self: Any, batch: Any) -> Any:
        time.sleep(0.005)
        return submit(self, batch)

    monkeypatch.setattr(fake_bench.Squares, "submit", later)
    monkeypatch.chdir(tmp_path)
    return made


def test_batches_are_compared_with_one_at_a_time(slow: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(slow, ["speed", "--data", "d", "--samples", "40", "--pairs", "2", "--batch", "8"]) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"^pair \d: Offline", said, re.MULTILINE)) == 2
    (ratio,) = re.findall(r"median [\d.]+ samples/s, ([\d.]+)x", " ".join(said.split()))
    assert float(ratio) > 3, "five batches of eight against forty of one"


def test_answers_are_made_with_the_benchmarks_own_dataset(slow: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    import fake_bench

    plain, folders = fake_bench.encode, set()

    def encode(outputs: Any, indices: Any, dataset: Any) -> Any:
        folders.add(dataset.folder)
        return plain(outputs, indices, dataset)

    monkeypatch.setattr(fake_bench, "encode", encode)
    assert invoke(slow, ["speed", "--data", "d", "--samples", "10", "--pairs", "1"]) == 0
    assert folders == {Path("d")}


def test_a_benchmark_says_what_it_compares_with(
    slow: Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    def reference(backend: Any, batch: Any) -> Any:
        seen.append(len(batch))
        return batch**2

    monkeypatch.setattr("fake_bench.reference", reference, raising=False)
    spec = replace(slow.backends["numpy"], baseline="fake_bench:reference")
    mini = replace(slow.profiles["mini"], gflop=1e-6)
    made = replace(slow, backends={"numpy": spec}, profiles={"mini": mini})
    assert invoke(made, ["speed", "--data", "d", "--samples", "10", "--pairs", "1"]) == 0
    assert seen == [1] * 20
    assert "GFLOP a second of a core" in capsys.readouterr().out


def test_encode_finds_what_its_own_dataset_has() -> None:
    class Own:
        name, total_count, performance_count = "own", 1, 1
        gather = costs = load = print
        labels = (1,)

    kept = Kept(Own())  # type: ignore[arg-type]
    assert kept.labels == (1,)
    with pytest.raises(AttributeError, match="other"):
        _ = kept.other


def test_a_sweep_runs_every_scenario_and_stops_after_two_invalid_rates(
    slow: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = [word for rate in (1000, 5_000, 5_001, 5_002) for word in ("--rate", str(rate))]
    options = ["speed", "--sweep", "--data", "d", "--duration", "0.8", "--batch", "16", "--html", "sweep.html", *rates]
    mini = slow.profiles["mini"]
    limits = {s: {**f, "server_target_latency_ns": 200_000_000} for s, f in mini.settings.items()}
    made = replace(slow, profiles={"mini": replace(mini, settings=limits)})
    assert invoke(made, options) == 0
    said = " ".join(capsys.readouterr().out.split())
    p50, offline = (
        re.search(r"SingleStream: p50 ([\d.]+) ms", said),
        re.search(r"Offline ([\d,.]+) samples/s, VALID", said),
    )
    assert p50
    assert float(p50[1]) >= 5, "the model's own time"
    assert offline
    assert 300 < float(offline[1].replace(",", "")) <= 3200, "16 samples each 5 ms"
    assert said.count("Server at") == 3
    assert "INVALID" in said
    assert "is not known for this device" in said
    page = Path("sweep.html").read_text()
    assert "Latency by rate" in page
    assert "dashed: limit of 200 ms" in page.replace("0.2 s", "200 ms")
    assert "is not known for this device" in page
    assert "var(--bad)" in page[page.index("<svg") :], "the limit is drawn in"


def test_a_sweeps_tests_are_no_longer_than_they_say(slow: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that ask for each sample equally often would make each as long as the data set."""
    asked: list[TestSettings] = []

    def spy(system: Any, library: Any, settings: TestSettings, **rest: Any) -> Result:
        asked.append(settings)
        return run(system, library, settings, **rest)

    monkeypatch.setattr(sweep, "run", spy)
    Path("user.conf").write_text("*.*.sample_concatenate_permutation = 1\n")
    options = ["speed", "--sweep", "--data", "d", "--duration", "0.1", "--batch", "16", "--user-conf", "user.conf"]
    assert invoke(slow, [*options, "--rate", "1000"]) == 0
    assert {one.scenario for one in asked} == set(slow.scenarios)
    assert not any(one.sample_concatenate_permutation for one in asked)
    assert asked[-1].min_query_count > 662, "fewer would not be judged by early stopping"


def test_the_limit_of_a_gpu_is_its_peak() -> None:
    assert gpu_tflops("cuda:0 (NVIDIA H100 80GB HBM3)", "bfloat16") == 989
    assert gpu_tflops("abacus", "bfloat16") == 0
    assert limit("cuda (NVIDIA H200)", "bfloat16", 8.2) == pytest.approx(120_609, rel=1e-3)
    assert limit("cuda (NVIDIA H200)", "bfloat16", 0) == 0
    assert core_gflops() > 0.1
