"""Children of these tests can import what lies here, and nothing of them is left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadgen.contracts import Backend
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.serving import Batching, BatchingSystem
from loadgen.results import Result
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings

HERE = Path(__file__).parent
SHORT = TestSettings(
    min_duration_ms=0,
    min_query_count=700,  # what early stopping needs at the 99th percentile
    single_stream_expected_latency_ns=1000,
    multi_stream_expected_latency_ns=1000,
    server_target_qps=1000.0,
    server_target_latency_ns=1_000_000_000,
    offline_expected_qps=1000.0,
)


@pytest.fixture(autouse=True)
def _tidy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Afterwards no process, worker's thread, mapping or descriptor is left."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)  # else each child imports pytest first
    yield
    assert not multiprocessing.active_children()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker")]
    gc.collect()
    assert "loadgen-ring" not in Path("/proc/self/maps").read_text()
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if "loadgen-ring" in _target(fd)]


def _target(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except FileNotFoundError:  # the one that listed the folder
        return ""


@pytest.fixture
def measured(benchmark_of: Callable[..., Benchmark]) -> Callable[..., Result]:
    """Runs backends in a scenario, on 50 numbers."""
    benchmark_of()
    import fake_bench  # type: ignore[import-not-found]

    def measure(
        backends: Sequence[Backend[Any, Any]], scenario: Scenario = Scenario.Offline, max_batch: int = 4
    ) -> Result:
        few = {"min_query_count": 64} if scenario is Scenario.SingleStream else {}  # as above, at the 90th
        dataset, batching = fake_bench.Numbers(Path()), Batching(max_batch)
        system = BatchingSystem("squares", backends, dataset, fake_bench.encode, batching)
        return run(system, dataset, replace(SHORT, scenario=scenario, **few), watchdog_s=60)

    return measure
