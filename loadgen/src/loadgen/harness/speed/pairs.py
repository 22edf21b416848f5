"""The `speed` command: Offline beside the same backend driven one sample at a time, in alternating pairs.

The same samples, threads and number format. Rates are by the clock; processor time compares the seconds that cores
worked, which others on the same cores change little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from loadgen.contracts import I64, Backend, Dataset, Encode, TokenBackend
from loadgen.harness.plan import Plan
from loadgen.harness.report import screen
from loadgen.harness.run import load_workers
from loadgen.harness.scoring import open_dataset
from loadgen.harness.speed.roofline import core_gflops
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings


class Kept:
    """A dataset that knows which samples the last test loaded, and keeps them."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset
        self.name, self.total_count, self.performance_count = (
            dataset.name,
            dataset.total_count,
            dataset.performance_count,
        )
        self.gather, self.costs = dataset.gather, dataset.costs
        self.order: I64 = np.empty(0, np.int64)

    def __getattr__(self, name: str) -> Any:
        """What else an `encode` reads of the benchmark's own class."""
        return getattr(self._dataset, name)

    def load(self, indices: Sequence[int]) -> None:
        """The first time only."""
        if not len(self.order):
            self._dataset.load(indices)
        self.order = np.array(indices, np.int64)

    def unload(self, indices: Sequence[int]) -> None:
        """Keeps them."""


class Pair(NamedTuple):
    """Samples a second by the clock, and of processor time."""

    offline: float
    offline_cpu: float
    alone: float
    alone_cpu: float


def execute(plan: Plan, samples: int, pairs: int) -> int:
    """Print a line a pair, and the medians with the range of the ratios."""
    out = screen.console(plan.request.quiet)
    dataset = Kept(open_dataset(plan))
    with ExitStack() as stack:
        workers = load_workers(plan, stack, out)
        one = _one_at_a_time(plan, workers.backends[0], dataset)
        found = []
        for number in range(pairs + 1):
            pair = _pair(plan, workers.backends, dataset, one, samples)
            if number:  # the first warms up
                found.append(pair)
                said = f"{pair.offline:.2f} samples/s, one at a time {pair.alone:.2f}/s"
                out.print(f"pair {number}: Offline {said}, {pair.offline / pair.alone:.2f}x", markup=False)
    _print_medians(plan, found, samples, out)
    return 0


def _one_at_a_time(plan: Plan, backend: Backend[Any, Any], dataset: Kept) -> Callable[[], None]:
    """What computes every sample alone: as the benchmark says its reference app does, else a batch of one."""
    encode: Encode[Any] = plan.imported(plan.benchmark.postprocess, "the postprocessing").encode
    baseline = plan.imported(plan.backend.baseline, "the baseline") if plan.backend.baseline else _alone

    def compute() -> None:
        for index in np.split(dataset.order, len(dataset.order)):
            encode(baseline(backend, dataset.gather(index)), index, dataset)

    return compute


def _alone(backend: Backend[Any, Any] | TokenBackend[Any], batch: Any) -> Any:
    """A batch of one, whole, before the next begins."""
    if not isinstance(backend, TokenBackend):
        return backend.submit(batch).result()
    backend.add(np.zeros(1, np.int64), batch)
    pieces, finished = [], False
    while not finished:
        tokens = backend.step(1.0)
        pieces.append(tokens.ids)
        finished = bool(tokens.finished.any())
    return [np.concatenate(pieces)]


def _pair(
    plan: Plan, backends: Sequence[Backend[Any, Any]], dataset: Kept, one: Callable[[], None], samples: int
) -> Pair:
    began = time.process_time()
    rate = _offline(plan, backends, dataset, samples)
    middle, began_alone = time.process_time(), time.perf_counter()
    one()
    ended, took = time.process_time(), time.perf_counter() - began_alone
    return Pair(rate, samples / (middle - began), samples / took, samples / (ended - middle))


def _offline(plan: Plan, backends: Sequence[Backend[Any, Any]], dataset: Kept, samples: int) -> float:
    """Samples a second, by the load generator's clock."""
    settings = TestSettings(
        scenario=Scenario.Offline,
        min_duration_ms=0,
        min_query_count=samples,
        performance_sample_count_override=samples,
        qsl_rng_seed=1,
    )
    encode = plan.imported(plan.benchmark.postprocess, "the postprocessing").encode
    system = plan.imported(plan.benchmark.system, "the system")(
        plan.benchmark.name, backends, dataset, encode, plan.batching
    )
    result = run(system, dataset, settings)
    result.raise_failure()
    rate = result.metrics["result_samples_per_second"]
    assert isinstance(rate, float)
    return rate


def _print_medians(plan: Plan, found: Sequence[Pair], samples: int, out: Console) -> None:
    rate, rate_cpu, alone, alone_cpu = np.array(found).T
    out.print(
        f"{plan.backend_name}, {plan.dtype}, {samples} samples, batches of {plan.batch}, {len(found)} pairs: "
        f"median {np.median(rate):.2f} samples/s, {_ranged(rate / alone)} of one at a time; "
        f"by processor time {_ranged(rate_cpu / alone_cpu)}"
    )
    if plan.profile.gflop and plan.device == "cpu":
        core = core_gflops()
        used = np.median(rate_cpu) * plan.profile.gflop
        out.print(f"{used:.0f} GFLOP a second of a core; its matrix product does {core:.0f}: {used / core:.0%}")


def _ranged(ratios: Any) -> str:
    return f"{np.median(ratios):.2f}x ({ratios.min():.2f}x to {ratios.max():.2f}x)"
