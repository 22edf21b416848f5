"""Draws test cases: settings, library sizes, flags. A seed always draws the same cases."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from loadgen.settings import Mode, Revision, Scenario, TestSettings


@dataclass(frozen=True)
class Case:
    settings: TestSettings
    total: int
    performance: int

    def labels(self) -> list[str]:
        """What this case covers, for the coverage table."""
        s = self.settings
        flags = {
            "unique": s.performance_issue_unique,
            "same": s.performance_issue_same,
            "equal issue": s.sample_concatenate_permutation,
            "tokens": s.use_token_latencies,
            "log sampling": bool(s.accuracy_log_probability or s.accuracy_log_sampling_target),
            "coalesce": s.server_coalesce_queries,
            "override": bool(s.performance_sample_count_override),
            "library over 65,535": self.total > 65535,
        }
        return [s.scenario.name, s.mode.name, *(name for name, on in flags.items() if on)]


def _seed(rng: random.Random) -> int:
    return rng.choice([0, 1, rng.getrandbits(31), rng.getrandbits(64), 2**32 + rng.getrandbits(8)])


def _size(rng: random.Random) -> int:
    return rng.choice(
        [
            rng.randint(1, 10),
            rng.randint(2, 300),
            rng.randint(2, 5000),
            rng.choice([65535, 65536, rng.randint(5000, 70000)]),
        ]
    )


def draw(rng: random.Random, revision: Revision) -> Case:
    """One case that the official LoadGen finishes in tens of milliseconds."""
    scenario = rng.choice(list(Scenario))
    mode = rng.choice([Mode.PerformanceOnly] * 3 + [Mode.AccuracyOnly])
    total = min(_size(rng), 70000 if mode is Mode.PerformanceOnly or rng.random() < 0.1 else 2000)
    performance = rng.choice([total, rng.randint(1, total), min(total, 64)])
    if mode is Mode.AccuracyOnly:
        performance = max(performance, total // 40 + 1)  # every set is a fresh block of logs
    unique = rng.random() < 0.1
    same = not unique and mode is Mode.PerformanceOnly and rng.random() < 0.15
    if unique and performance > 5000:
        performance = 5000
    samples_per_query = rng.choice([8, 1, 2, rng.randint(1, 20)])
    settings = TestSettings(
        scenario=scenario,
        mode=mode,
        single_stream_expected_latency_ns=rng.choice([50_000, rng.randint(3_000, 400_000)]),
        multi_stream_expected_latency_ns=rng.choice([100_000, rng.randint(30_000, 800_000)]),
        multi_stream_samples_per_query=samples_per_query,
        server_target_qps=rng.choice([20_000.0, rng.uniform(100, 60_000), rng.uniform(1e5, 9e5)]),
        server_target_latency_ns=rng.choice([10_000_000, 1, rng.randint(1000, 10**8)]),
        server_target_latency_percentile=rng.choice([0.99, 0.9, 0.97]),
        server_coalesce_queries=rng.random() < 0.15,
        offline_expected_qps=rng.choice([1000.0, rng.uniform(1, 2e5)]),
        # The official code runs past the end of its list on this combination; ours refuses it.
        sample_concatenate_permutation=rng.random() < 0.2 and not (unique and scenario is Scenario.MultiStream),
        min_duration_ms=rng.choice([0, 1, 5, rng.randint(1, 25)]),
        min_query_count=rng.choice([1, 100, rng.randint(1, 3000)]),
        qsl_rng_seed=_seed(rng),
        sample_index_rng_seed=_seed(rng),
        schedule_rng_seed=_seed(rng),
        accuracy_log_rng_seed=_seed(rng),
        accuracy_log_probability=rng.choice([0.0, 0.0, 0.1, rng.random()]),
        accuracy_log_sampling_target=rng.choice([0, 0, 0, rng.randint(1, 500)]),
        performance_issue_unique=unique,
        performance_issue_same=same,
        performance_issue_same_index=rng.randrange(performance) if same else 0,
        performance_sample_count_override=rng.choice([0, 0, 0, rng.randint(1, performance)]),
        use_token_latencies=rng.random() < 0.2,
        server_ttft_latency=rng.choice([10**8, 1]),
        server_tpot_latency=rng.choice([10**8, 1]),
        revision=revision,
    )
    if same and settings.performance_sample_count_override:
        settings = replace(settings, performance_issue_same_index=0)
    return Case(settings, total, performance)


def draw_all(seed: int, count: int, revision: Revision) -> Iterator[Case]:
    rng = random.Random(seed)
    for _ in range(count):
        yield draw(rng, revision)
