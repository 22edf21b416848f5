"""`run --find-peak`: the highest rate of Server that ends VALID, and the rate that Offline is to expect.

The search takes short tests, at most `STEPS` of them; what counts is the full test at the rate that they found, which
is run again at a lower one where it ends INVALID.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from loadgen.harness.plan import Layered
from loadgen.harness.report import screen
from loadgen.results import Result
from loadgen.settings import Mode, Scenario, TestSettings

STEPS = 14
"""Most short tests of a search: 8 doublings or halvings, and 5 bisections, which leave 3 %."""

PRECISION = 0.03
"""Share of the rate at which bisection ends."""

QUERIES = 700
"""Of a short test at the least: early stopping wants 662 at the 99th percentile, one of them late."""

TRY_S = 10.0
PROBE_S = 1.0
"""How long the last probe of Offline takes at least."""

SHARES = (1.0, 0.95, 0.85, 0.7)
"""Of the rate that was found: the full tests, one after another until one ends VALID."""

ORIGIN = "found by --find-peak"


@dataclass(frozen=True)
class Tried:
    """One short test of a search."""

    rate: float
    """Queries a second."""
    valid: bool
    latency_ns: int
    """At the percentile that the rules judge; of the first token where tokens are timed."""


def search(start: float, holds: Callable[[float], bool], steps: int = STEPS) -> float | None:
    """The highest rate that holds, as far as so many tests can tell; None: none did.

    Doubles from `start` while it holds, or halves until it does, and bisects what lies between.
    """
    low, high, rate = 0.0, 0.0, start
    for _ in range(steps):
        if holds(rate):
            low = rate
        else:
            high = rate
        if low and high and high <= low * (1 + PRECISION):
            break
        rate = (low + high) / 2 if low and high else low * 2 if low else high / 2
    return low or None


def server_settings(settings: TestSettings, rate: float) -> TestSettings:
    """A short test at this rate: as many queries as early stopping needs, and no more time than that takes.

    That each sample comes equally often, which the rules ask of some models, would make it as long as the data set.
    """
    return replace(
        settings,
        server_target_qps=rate,
        min_duration_ms=min(settings.min_duration_ms, int(1e3 * TRY_S)),
        min_query_count=max(QUERIES, int(TRY_S * rate)),
        sample_concatenate_permutation=False,
    )


def tried_at(rate: float, settings: TestSettings, result: Result) -> Tried:
    """What a short test of Server at this rate showed."""
    share = 100 * settings.server_target_latency_percentile
    of = "first_token_" if settings.use_token_latencies else ""
    return Tried(rate, result.valid, int(result.metrics.get(f"result_{of}{share:.2f}_percentile_latency_ns", 0)))


def find_server_rate(
    test: Layered, run: Callable[[TestSettings], Result], say: Callable[[str], None]
) -> tuple[float | None, list[Tried]]:
    """(highest rate whose short test is VALID, what was tried). run: one test, without logs. Ctrl-C ends the search."""
    tried: list[Tried] = []

    def holds(rate: float) -> bool:
        result = run(server_settings(test.settings, rate))
        tried.append(tried_at(rate, test.settings, result))
        share, said = 100 * test.settings.server_target_latency_percentile, "holds" if result.valid else "does not hold"
        whole = f": p{share:g} {tried[-1].latency_ns / 1e6:,.2f} ms"
        say(f"Server at {rate:,.4g}/s{screen.tokens(result.metrics) or whole}, {said}")
        return result.valid

    return search(test.settings.server_target_qps, holds), tried


def find_offline_rate(test: Layered, run: Callable[[TestSettings], Result], say: Callable[[str], None]) -> float:
    """Samples a second of ever larger queries, until one takes `PROBE_S`: what Offline is to expect."""
    samples = 64
    while True:
        one = TestSettings(scenario=Scenario.Offline, min_duration_ms=0, min_query_count=samples)
        result = run(replace(one, performance_sample_count_override=test.settings.performance_sample_count_override))
        rate = float(result.metrics.get("result_samples_per_second", 0.0))
        if result.duration_ns >= 1e9 * PROBE_S or not result.valid:
            say(f"Offline: about {rate:,.4g} samples/s")
            return rate
        samples *= 4


def at_rate(test: Layered, rate: float) -> Layered:
    """The test with the rate that was found in the place of what settings say."""
    field = {Scenario.Server: "server_target_qps", Scenario.Offline: "offline_expected_qps"}[test.settings.scenario]
    changed: dict[str, Any] = {field: rate}
    return test.then(ORIGIN, replace(test.settings, **changed))


def is_sought(test: Layered) -> bool:
    """Does the rate of this test matter?"""
    return test.settings.mode is Mode.PerformanceOnly and test.settings.scenario in (Scenario.Server, Scenario.Offline)
