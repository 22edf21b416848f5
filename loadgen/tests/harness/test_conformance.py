"""A whole toy passes every check; each planted fault fails the check that is for it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import I64, Answers, BackendOptions, InputError, Loaded, Scoring
from loadgen.harness.assets.asset import Asset
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.harness.conformance import conformance
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide
from loadgen.settings import Scenario

COUNT = 12
ASSETS = (Asset("data/numbers", "https://example.org/numbers", "CC0", bytes=4), Asset("model/w", "", "CC0", gate="ask"))


class Dataset:
    name, total_count, performance_count = "numbers", COUNT, COUNT

    def __init__(self, folder: Path) -> None:
        file = folder / "data" / "numbers.txt"
        words = file.read_text().split() if file.is_file() else []
        if len(words) != COUNT:
            raise InputError(f"{file}: {len(words)} numbers, {COUNT} expected")
        self.numbers = np.array(words, np.int64)

    def load(self, indices: Any) -> None: ...

    def unload(self, indices: Any) -> None: ...

    def gather(self, indices: I64) -> I64:
        return self.numbers[indices]

    def costs(self, indices: I64) -> I64:
        return 1 + indices


class Backend:
    """Multiplies by the weight in its file."""

    def __init__(self, options: BackendOptions) -> None:
        if options.device == "cuda:99":
            raise InputError("device cuda:99: there is no such GPU")
        self.options = options

    def load(self) -> Loaded:
        file = provide(self.options.model / "weight.bin", self.options)
        if file.read_bytes() != b"factor 3":
            raise InputError(f"{file}: not a factor")
        return Loaded("cpu", "float32")

    def submit(self, batch: I64) -> Any:
        return finished(batch * 3)

    def close(self) -> None: ...


def encode(outputs: I64, indices: I64, dataset: Any) -> Answers:
    return Answers(outputs, np.arange(len(outputs) + 1) * 8)


def decode(data: bytes) -> int:
    return int(np.frombuffer(data, np.int64)[0])


def score(entries: Any, dataset: Dataset, at: Scoring) -> dict[str, float]:
    right = [decode(entry.data) == 3 * dataset.numbers[entry.index] for entry in entries]
    return {"f1": 100 * float(np.mean(right)), "exact_match": 0.0}


def prepare(folder: Path) -> None:
    for name in ("data", "model"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if not (folder / "made").exists():
        (folder / "data" / "numbers.txt").write_text(" ".join(map(str, range(COUNT))))
        (folder / "made").touch()


def weigh(file: Path) -> None:
    file.write_bytes(b"factor 3")


def missing(folder: Path) -> None:
    raise InputError(f"{folder}: numbers and w are missing")


def train(words: list[str]) -> None: ...


SHORT = {"performance_sample_count_override": 0, "min_query_count": 700}
MINI = Profile(
    "numbers, embedded",
    "whole_bench:prepare",
    weights="whole_bench:weigh",
    samples=COUNT,
    reference={"f1": 100.0},
    settings={
        Scenario.SingleStream: {"single_stream_expected_latency_ns": 10_000.0, **SHORT},
        Scenario.Server: {"server_target_qps": 800.0, "server_target_latency_ns": 10**9, **SHORT},
        Scenario.Offline: {"offline_expected_qps": 3_000_000.0, **SHORT},
    },
)
FULL = Profile("numbers", "whole_bench:missing", is_official=True, assets="whole_bench:ASSETS")
WHOLE = Benchmark(
    name="whole",
    title="Whole",
    model="bert",
    scenarios=(Scenario.SingleStream, Scenario.Server, Scenario.Offline),
    dataset="whole_bench:Dataset",
    backends={"numpy": BackendSpec("whole_bench:Backend", "x", devices=("cpu", "cuda"), file="weight.bin")},
    postprocess="whole_bench",
    accuracy="whole_bench",
    profiles={"mini": MINI, "synthetic": replace(MINI, settings={}), "full": FULL},
    train="whole_bench:train",
)
NAMES = [check.name for check in conformance(WHOLE)]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """This file under the name by which WHOLE calls it, with a command line."""
    made = types.ModuleType("whole_bench")
    made.__dict__.update(globals())
    monkeypatch.setitem(sys.modules, "whole_bench", made)
    return made


def run(benchmark: Benchmark, name: str, folder: Path) -> None:
    (check,) = (check for check in conformance(benchmark) if check.name == name)
    check(folder)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "help is light"])  # which needs a package
def test_a_whole_benchmark_passes(name: str, module: types.ModuleType, tmp_path: Path) -> None:
    run(WHOLE, name, tmp_path)


def _profiles(**changed: Profile) -> Benchmark:
    return replace(WHOLE, profiles={**WHOLE.profiles, **changed})


def _without(name: str) -> Benchmark:
    return replace(WHOLE, profiles={k: v for k, v in WHOLE.profiles.items() if k != name})


def _backend(**changed: Any) -> Benchmark:
    return replace(WHOLE, backends={"numpy": replace(WHOLE.backends["numpy"], **changed)})


LITERALS: list[tuple[str, Benchmark, str]] = [
    ("nothing is forgotten", _without("synthetic"), "no profile 'synthetic'"),
    ("nothing is forgotten", _profiles(full=replace(FULL, assets="")), "lists no assets"),
    ("nothing is forgotten", _profiles(full=replace(FULL, is_official=False, samples=1)), "not marked is_official"),
    ("nothing is forgotten", _profiles(mini=replace(MINI, samples=0)), "how many samples"),
    ("nothing is forgotten", _profiles(mini=replace(MINI, reference={})), "no reference"),
    ("nothing is forgotten", _profiles(mini=replace(MINI, settings={})), "no settings for SingleStream"),
    ("nothing is forgotten", _backend(extra=""), "which extra"),
    ("nothing is forgotten", replace(WHOLE, train=""), "how the miniature is trained"),
    ("names import", _backend(name="whole_bench:Absent"), "has no Absent"),
    ("names import", replace(WHOLE, postprocess="loadgen.harness.plan"), "has no encode"),
    ("rules and literal agree", replace(WHOLE, scenarios=(Scenario.Offline,)), "the rules require"),
    ("rules and literal agree", _profiles(mini=replace(MINI, reference={"bleu": 1.0})), "'bleu' is not judged"),
    ("rules and literal agree", _profiles(mini=replace(MINI, settings={Scenario.MultiStream: {}})), "is not offered"),
    (
        "rules and literal agree",
        _profiles(mini=replace(MINI, settings={Scenario.Offline: {"qps": 1}})),
        "are not settings",
    ),
    ("dataset keeps its contract", _profiles(mini=replace(MINI, samples=13)), "the dataset has 12 samples"),
]


@pytest.mark.parametrize(("name", "benchmark", "message"), LITERALS)
def test_a_fault_of_the_literal_is_found(
    name: str, benchmark: Benchmark, message: str, module: types.ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=message):
        run(benchmark, name, tmp_path)


FAULTS: list[tuple[str, str, Callable[..., Any], str]] = [
    ("assets are checkable", "ASSETS", lambda: (replace(ASSETS[0], path="numbers"),), "neither to data/ nor"),
    ("assets are checkable", "ASSETS", lambda: (replace(ASSETS[0], address=""),), "neither an address"),
    ("assets are checkable", "ASSETS", lambda: (replace(ASSETS[0], bytes=0),), "nothing to check it by"),
    ("assets are checkable", "ASSETS", lambda: (replace(ASSETS[0], backends=("tvm",)),), "unknown backend"),
    ("full profile lists what is missing", "missing", lambda: prepare, "exit code"),
    (
        "dataset keeps its contract",
        "Dataset.costs",
        lambda: lambda self, indices: [1] * len(indices),
        "shape|attribute",
    ),
    ("dataset keeps its contract", "Dataset.costs", lambda: lambda self, indices: indices, "not above 0"),
    ("device and dtype are refused", "Backend.__init__", lambda: lambda self, options: 1 / 0, "exit code 3"),
    ("Offline is VALID", "score", lambda: lambda *_: {"f1": 3.0, "exact_match": 0.0}, "exit code 1"),
    ("numpy meets the target", "Backend.submit", lambda: lambda self, batch: finished(batch), "exit code 1"),
    ("numpy refuses damaged weights", "Backend.load", lambda: lambda self: Loaded("cpu", "float32"), "exit code 0"),
    ("damaged data are refused", "Dataset.__init__", lambda: _blind, "0"),
]


def _blind(self: Any, folder: Path) -> None:
    self.numbers = np.arange(COUNT)


@pytest.mark.parametrize(("name", "what", "fault", "message"), FAULTS)
def test_a_fault_of_the_code_is_found(
    name: str,
    what: str,
    fault: Callable[[], Any],
    message: str,
    module: types.ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"whole_bench.{what}", fault())
    with pytest.raises((AssertionError, AttributeError), match=message):
        run(WHOLE, name, tmp_path)
