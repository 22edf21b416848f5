"""The `speed --sweep` command: every scenario once, then Server at rising rates until two are INVALID.

For a GPU above all: what is found stands beside what the arithmetic of the device allows.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from loadgen.contracts import Backend
from loadgen.harness.loading import Spoken
from loadgen.harness.peak import QUERIES, Tried, tried_at
from loadgen.harness.plan import Plan, layered
from loadgen.harness.report import screen
from loadgen.harness.run import load_workers
from loadgen.harness.scoring import open_dataset
from loadgen.harness.speed.pairs import Kept
from loadgen.harness.speed.roofline import limit
from loadgen.harness.workers import Opened
from loadgen.results import Result
from loadgen.run import run
from loadgen.settings import Mode, Scenario, TestSettings

SHARES = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # of Offline's rate, which Server is tried at
_PROBE_S = 1.0


def execute(plan: Plan, rates: tuple[float, ...], html: Path | None = None) -> int:
    """rates: of Server, in samples a second; none: shares of what Offline does. html: a page of what was said, with
    Server's latency by rate."""
    out = screen.console(plan.request.quiet)
    dataset = Kept(open_dataset(plan))
    with ExitStack() as stack:
        workers = load_workers(plan, stack, out)
        bench = _Bench(plan, workers, dataset, out)
        if html is not None:
            stack.callback(bench.write, html)  # what an interrupted sweep has measured, too
        expected = bench.probe()
        offline = 0.0
        for scenario in plan.benchmark.scenarios:
            if scenario is not Scenario.Server:
                result = bench.test(scenario, expected)
                offline = _rate(result) if scenario is Scenario.Offline else offline
        if Scenario.Server in plan.benchmark.scenarios:
            bench.server(rates or tuple(share * offline for share in SHARES), offline)
        bench.say(_limit(plan, workers, offline))
    return 0


class _Bench:
    """What every test of a sweep shares."""

    def __init__(self, plan: Plan, workers: Opened[Any, Any], dataset: Kept, out: Console) -> None:
        self.plan, self.dataset, self.out = plan, dataset, out
        self.backends: tuple[Backend[Any, Any], ...] = workers.backends
        self.duration_s = plan.request.overrides.duration_s or 20.0
        self.lines: list[str] = []
        self.tried: list[Tried] = []
        self.asked = TestSettings()
        """Of Server."""

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.out.print(line, markup=False)

    def probe(self) -> float:
        """Samples a second in Offline, from ever larger queries until one takes a second."""
        samples = self.plan.batch
        while True:
            began = time.perf_counter()
            result = self._run(TestSettings(scenario=Scenario.Offline, min_duration_ms=0, min_query_count=samples))
            if time.perf_counter() - began > _PROBE_S:
                return _rate(result)
            samples *= 4

    def test(self, scenario: Scenario, expected: float) -> Result:
        """One scenario at the sweep's duration; expected: Offline's rate, from which the series' length follows."""
        plan = self.plan
        layers = layered(plan.benchmark, plan.profile, scenario, Mode.PerformanceOnly, plan.request.overrides)
        hurry: dict[str, Any] = {
            Scenario.Offline: {"offline_expected_qps": expected, "min_query_count": 1},
            Scenario.SingleStream: {"single_stream_expected_latency_ns": 1e9 / expected, "min_query_count": 64},
            Scenario.MultiStream: {"multi_stream_expected_latency_ns": 8e9 / expected, "min_query_count": 662},
            Scenario.Server: {"server_target_qps": expected, "min_query_count": QUERIES},
        }[scenario]
        hurry |= {"min_duration_ms": int(self.duration_s * 1e3), "sample_concatenate_permutation": False}
        result = self._run(replace(layers.settings, **hurry))
        self.say(_line(scenario, result))
        if scenario is Scenario.Server:
            self.asked = layers.settings
            self.tried.append(tried_at(expected, layers.settings, result))
        return result

    def write(self, html: Path) -> None:
        """The page. Raises InputError if it cannot be written."""
        from loadgen.harness.report.charts import Judged, draw_rates  # matplotlib takes a second to import
        from loadgen.harness.report.page import picture, render, write_page

        asked = self.asked
        judged = Judged(first_ns=asked.server_ttft_latency, token_ns=asked.server_tpot_latency)
        if not asked.use_token_latencies:
            judged = Judged(limit_ns=asked.server_target_latency_ns)
        chart = picture(draw_rates(self.tried, "s", judged)) if self.tried else None
        title = f"{self.plan.benchmark.title}: {self.plan.backend_name} on {self.plan.device}"
        write_page(html, render("sweep.html", title=title, lines=self.lines, chart=chart))
        self.out.print(f"sweep: {html}", markup=False, soft_wrap=True)

    def server(self, rates: tuple[float, ...], offline: float) -> None:
        """Rising rates, until two are INVALID."""
        failed = 0
        for rate in rates:
            self.say(f"Server at {rate:,.0f}/s, {rate / offline:.0%} of Offline:")
            failed += not self.test(Scenario.Server, rate).valid
            if failed == 2:
                return

    def _run(self, settings: TestSettings) -> Result:
        plan = self.plan
        encode = plan.imported(plan.benchmark.postprocess, "the postprocessing").encode
        build = plan.imported(plan.benchmark.system, "the system")
        system = build(plan.benchmark.name, self.backends, self.dataset, encode, plan.batching)
        library = Spoken(self.dataset, partial(self.out.print, markup=False))
        result = run(system, library, settings)
        result.raise_failure()
        return result


def _rate(result: Result) -> float:
    rate = result.metrics["result_samples_per_second"]
    assert isinstance(rate, float)
    return rate


def _line(scenario: Scenario, result: Result) -> str:
    """Of samples; in MultiStream all of a query's count from when it was issued."""
    verdict = "VALID" if result.valid else f"INVALID ({'; '.join(result.reasons)})"
    if scenario is Scenario.Offline:
        return f"Offline {_rate(result):,.1f} samples/s, {verdict}"
    p50, p90, p99 = np.percentile(result.latencies_ns, [50, 90, 99]) / 1e6
    of_tokens = screen.tokens(result.metrics)
    return f"{scenario.name}: p50 {p50:.2f} ms, p90 {p90:.2f} ms, p99 {p99:.2f} ms{of_tokens}, {verdict}"


def _limit(plan: Plan, workers: Opened[Any, Any], offline: float) -> str:
    allowed = sum(limit(one.device, one.dtype, plan.profile.gflop) for one in workers.loaded)
    if not allowed:
        return "what the arithmetic allows is not known for this device, or the profile does not say its gflop"
    return f"the arithmetic allows {allowed:,.0f} samples/s: Offline does {offline / allowed:.0%} of that"
