"""A benchmark small enough to read here: samples are numbers, the model squares them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from loadgen.contracts import I64, Answers, BackendOptions, Entry, InputError, Loaded, Scoring
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.harness.serving import finished
from loadgen.settings import Scenario


class Numbers:
    name, total_count, performance_count = "numbers", 50, 50

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, indices: Sequence[int]) -> None: ...

    def unload(self, indices: Sequence[int]) -> None: ...

    def gather(self, indices: I64) -> I64:
        return indices.copy()

    def costs(self, indices: I64) -> I64:
        return indices % 7


class Squares:
    """Fails on `bad` when it comes; remembers its batches."""

    bad = -1
    device = ""

    def __init__(self, options: BackendOptions) -> None:
        self.options = options
        self.batches: list[list[int]] = []
        self.closed = False

    def load(self) -> Loaded:
        return Loaded(self.device or self.options.device, self.options.dtype, {"abacus": "3.1"})

    def submit(self, batch: I64) -> Future[I64]:
        self.batches.append(batch.tolist())
        if self.bad in batch:
            raise RuntimeError("no square for that")
        return finished(batch**2)

    def close(self) -> None:
        self.closed = True


def encode(outputs: I64, indices: I64, dataset: Numbers) -> Answers:
    return Answers(outputs.astype(np.int32).tobytes(), list(range(0, 4 * len(outputs) + 1, 4)))


def score(entries: Iterable[Entry], dataset: Numbers, at: Scoring) -> dict[str, float]:
    right = {entry.index for entry in entries if int.from_bytes(entry.data, "little") == entry.index**2}
    return {"f1": 100 * len(right) / dataset.total_count, "exact_match": 0.0}


def prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "broken").exists():
        raise InputError(f"{folder / 'broken'}: remove this file")


SHORT = {
    Scenario.SingleStream: {
        "single_stream_expected_latency_ns": 1000.0,
        "min_duration_ms": 50,
        "min_query_count": 64,
        "performance_sample_count_override": 0,
    },
    Scenario.Server: {
        "server_target_qps": 5000.0,
        "server_target_latency_ns": 1_000_000_000,
        "min_duration_ms": 200,
        "min_query_count": 500,
        "performance_sample_count_override": 0,
    },
    Scenario.Offline: {
        "offline_expected_qps": 20_000.0,
        "min_duration_ms": 0,
        "min_query_count": 20_000,
        "performance_sample_count_override": 0,
    },
}


@pytest.fixture
def benchmark_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Benchmark]:
    """Makes a benchmark whose dotted names lead to this file."""
    module = types.ModuleType("fake_bench")
    module.__dict__.update(globals())
    monkeypatch.setitem(sys.modules, "fake_bench", module)

    def make(bad: int = -1, reference: float = 100.0) -> Benchmark:
        monkeypatch.setattr(Squares, "bad", bad)
        mini = Profile("numbers, embedded", "fake_bench:prepare", reference={"f1": reference}, settings=SHORT)
        return Benchmark(
            name="squares",
            title="Squares",
            model="bert",
            scenarios=tuple(SHORT),
            dataset="fake_bench:Numbers",
            backends={
                "numpy": BackendSpec("fake_bench:Squares", devices=("cpu", "cuda")),
                "missing": BackendSpec("no_such_framework:Backend", extra="abacus"),
            },
            postprocess="fake_bench",
            accuracy="fake_bench",
            profiles={"mini": mini},
        )

    return make
