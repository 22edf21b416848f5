"""How near Server comes to Offline behind `BatchingSystem`, and what batches it makes: on a device that only waits.

`python batching_server.py --fixed-ms 0.35 --sample-us 22.7 --max-batch 256 --step 16`. The device computes one batch
after another, each for a fixed time and a time for each sample; a batch is rounded up to the next multiple of a step,
below the first to the next power of two (`--step 256`: powers of two only). The defaults are ResNet-50's times on an
H100. Offline, then Server at rising shares of its rate until one is INVALID: 45 seconds. Disturbed by what else the
processor does.
"""

from __future__ import annotations

import argparse
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np

from loadgen.clock import precise_sleep
from loadgen.contracts import I64, Answers, Loaded
from loadgen.harness.serving import Batching, BatchingSystem
from loadgen.results import Result
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings
from loadgen.testing import FakeLibrary

SHARES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


class Numbers(FakeLibrary):
    """A `Dataset` whose samples are their indices."""

    def gather(self, indices: I64) -> I64:
        return indices

    def costs(self, indices: I64) -> I64:
        return np.ones(len(indices), np.int64)


class Device:
    """A `Backend` that takes the time of computing a batch, and computes nothing."""

    def __init__(self, fixed_s: float, sample_s: float, sizes: list[int]) -> None:
        self._fixed_s, self._sample_s, self._sizes = fixed_s, sample_s, sizes
        self._free_at = 0.0
        self.batches: list[int] = []
        self._computing: queue.SimpleQueue[tuple[float, Future[Any], int]] = queue.SimpleQueue()
        threading.Thread(target=self._answer, name="device", daemon=True).start()

    def load(self) -> Loaded:
        return Loaded("nothing", "float32")

    def submit(self, batch: Any) -> Future[Any]:
        size = min(size for size in self._sizes if size >= len(batch))
        self._free_at = max(self._free_at, time.perf_counter()) + self._fixed_s + size * self._sample_s
        self.batches.append(len(batch))
        future: Future[Any] = Future()
        self._computing.put((self._free_at, future, len(batch)))
        return future

    def _answer(self) -> None:
        with precise_sleep():
            while True:
                at, future, count = self._computing.get()
                time.sleep(max(0.0, at - time.perf_counter()))
                future.set_result(count)

    def close(self) -> None: ...


def encode(count: int, indices: I64, dataset: Numbers) -> Answers:
    """One byte for each sample."""
    return Answers(bytes(count), np.arange(count + 1))


def sizes(max_batch: int, step: int) -> list[int]:
    """The device's batches."""
    powers = (1 << power for power in range(min(step, max_batch).bit_length()))
    return sorted({max_batch, *powers, *range(step, max_batch, step)})


def test(device: Device, max_batch: int, settings: TestSettings) -> Result:
    device.batches.clear()
    numbers = Numbers()
    result = run(BatchingSystem("device", [device], numbers, encode, Batching(max_batch)), numbers, settings)
    assert not result.errors, result.errors
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixed-ms", type=float, default=0.35)
    parser.add_argument("--sample-us", type=float, default=22.7)
    parser.add_argument("--max-batch", type=int, default=256)
    parser.add_argument("--step", type=int, default=16)
    parser.add_argument("--limit-ms", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    device = Device(asked.fixed_ms / 1e3, asked.sample_us / 1e6, sizes(asked.max_batch, asked.step))
    length: dict[str, Any] = {"min_duration_ms": round(asked.seconds * 1e3), "min_query_count": 1}
    expected = asked.max_batch / (asked.fixed_ms / 1e3 + asked.max_batch * asked.sample_us / 1e6)
    settings = TestSettings(scenario=Scenario.Offline, offline_expected_qps=expected, **length)
    offline = test(device, asked.max_batch, settings).metrics["result_samples_per_second"]
    assert isinstance(offline, float)
    print(f"Offline {offline:,.0f} samples/s")
    for share in SHARES:
        rate, limit_ns = share * offline, round(asked.limit_ms * 1e6)
        server = TestSettings(scenario=Scenario.Server, server_target_latency_ns=limit_ns, **length)
        result = test(device, asked.max_batch, replace(server, server_target_qps=rate))
        print(line(f"Server at {share:.0%} of it, {rate:,.0f}/s", result, device), flush=True)
        if not result.valid:
            break


def line(what: str, result: Result, device: Device) -> str:
    assert result.columns is not None
    p50, p99 = np.percentile(result.columns.latencies_ns, [50, 99]) / 1e6
    late = np.percentile(result.columns.issued_ns - result.columns.scheduled_ns, 99) / 1e3
    batch, largest = np.mean(device.batches), max(device.batches)
    verdict = "VALID" if result.valid else "INVALID"
    return (
        f"{what}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {verdict}; batches of {batch:.0f} on average, {largest} at most; "
        f"issued {late:.0f} us late at p99"
    )


if __name__ == "__main__":
    main()
