"""Draws test cases: settings, library sizes, flags, audit files. A seed always draws the same cases."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from loadgen.conf import apply_official
from loadgen.settings import Mode, Revision, Scenario, SettingsError, TestSettings, effective


@dataclass(frozen=True)
class Manner:
    """How the system answers. As decided as a seed: nothing of it depends on the time."""

    held: int = 0
    """So many samples are answered only when more come, or at the flush."""
    is_reversed: bool = False
    """What is answered together is answered last to first."""


@dataclass(frozen=True)
class Case:
    settings: TestSettings
    total: int
    performance: int
    manner: Manner = Manner()
    audit: str = ""
    """The content of audit.config; empty for none."""

    def flags(self) -> list[str]:
        """What this case covers beside scenario and mode, for the coverage table."""
        s = self.settings
        flags = {
            "unique": s.performance_issue_unique,
            "same": s.performance_issue_same,
            "equal issue": s.sample_concatenate_permutation,
            "tokens": s.use_token_latencies,
            "tokens inferred": s.infer_token_latencies,
            "log probability": bool(s.accuracy_log_probability),
            "log sampling target": bool(s.accuracy_log_sampling_target),
            "coalesce": s.scenario is Scenario.Server and s.server_coalesce_queries,
            "performance override": bool(s.performance_sample_count_override),
            "accuracy override": bool(s.accuracy_sample_count_override),
            "max queries": bool(s.max_query_count),
            "max duration": bool(s.max_duration_ms),
            "max async": s.scenario is Scenario.Server and bool(s.server_max_async_queries),
            "answers held": bool(self.manner.held),
            "answers reversed": self.manner.is_reversed,
            "audit file": bool(self.audit),
            "TEST05": bool(self.audit) and (s.test05 or "test05 = 1" in self.audit),
            "library over 65,535": self.total > 65535,
        }
        return [name for name, on in flags.items() if on]


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


_MODES = [Mode.PerformanceOnly] * 4 + [Mode.AccuracyOnly, Mode.SubmissionRun]


def _library(rng: random.Random, mode: Mode) -> tuple[int, int, int]:
    """(total, performance and override counts). Every set of an accuracy test costs 10 ms officially."""
    total = min(_size(rng), 70000 if mode is Mode.PerformanceOnly or rng.random() < 0.1 else 2000)
    least = 1 if mode is Mode.PerformanceOnly else total // 8 + 1
    performance = max(least, rng.choice([total, rng.randint(1, total), min(total, 64)]))
    return total, performance, rng.choice([0, 0, 0, rng.randint(least, performance)])


def draw(rng: random.Random, revision: Revision) -> Case:
    """One case that the official LoadGen finishes in tens of milliseconds."""
    scenario, mode = rng.choice(list(Scenario)), rng.choice(_MODES)
    total, performance, override = _library(rng, mode)
    unique = rng.random() < 0.1
    timed = mode is Mode.PerformanceOnly
    same = not unique and rng.random() < 0.15
    if unique and performance > 5000:
        performance, override = 5000, 0
    settings = TestSettings(
        scenario=scenario,
        mode=mode,
        single_stream_expected_latency_ns=rng.choice([50_000, rng.randint(3_000, 400_000)]),
        multi_stream_expected_latency_ns=rng.choice([100_000, rng.randint(30_000, 800_000)]),
        multi_stream_samples_per_query=rng.choice([8, 1, 2, rng.randint(1, 20)]),
        server_target_qps=rng.choice([20_000.0, rng.uniform(100, 60_000), rng.uniform(1e5, 9e5)]),
        server_target_latency_ns=rng.choice([10_000_000, 1, rng.randint(1000, 10**8)]),
        server_target_latency_percentile=rng.choice([0.99, 0.9, 0.97]),
        server_coalesce_queries=rng.random() < 0.15,
        server_max_async_queries=rng.choice([0, 0, 1, rng.randint(1, 20)]),
        offline_expected_qps=rng.choice([1000.0, rng.uniform(1, 2e5), rng.uniform(1, 2e5), -3.5]),
        # The official code runs past the end of its list on this combination; ours refuses it. A query for
        # each sample of a large library takes a second, so few of them are drawn.
        sample_concatenate_permutation=rng.random() < (0.25 if total < 5000 else 0.05)
        and not (unique and scenario is Scenario.MultiStream),
        min_duration_ms=rng.choice([0, 1, 5, rng.randint(1, 25)]),
        max_duration_ms=rng.choice([0, 0, 0, 1, rng.randint(1, 20)]),
        min_query_count=rng.choice([1, 100, rng.randint(1, 3000)]),
        max_query_count=rng.choice([0, 0, 0, 1, rng.randint(1, 2000)]),
        qsl_rng_seed=_seed(rng),
        sample_index_rng_seed=_seed(rng),
        schedule_rng_seed=_seed(rng),
        accuracy_log_rng_seed=_seed(rng),
        accuracy_log_probability=rng.choice([0.0, 0.0, 0.1, 1.0, rng.random()]),
        accuracy_log_sampling_target=rng.choice([0, 0, 0, rng.randint(1, 500)]),
        test05=rng.random() < 0.3,  # means nothing without an audit file; 6.0 takes it from no such file
        test05_qsl_rng_seed=_seed(rng),
        test05_sample_index_rng_seed=_seed(rng),
        test05_schedule_rng_seed=_seed(rng),
        performance_issue_unique=unique,
        performance_issue_same=same,
        # an accuracy test may end with a set of one sample
        performance_issue_same_index=rng.randrange(override or performance) if same and timed else 0,
        performance_sample_count_override=override,
        use_token_latencies=rng.random() < 0.2,
        server_ttft_latency=rng.choice([10**8, 1]),
        server_tpot_latency=rng.choice([10**8, 1]),
        revision=revision,
    )
    if revision is Revision.V6_0:
        settings = _of_6_0(rng, settings, total)
    held = rng.choice([0, 0, rng.randint(1, 30)]) if scenario in (Scenario.Server, Scenario.Offline) else 0
    case = Case(settings, total, performance, Manner(held, rng.random() < 0.3))
    return _audited(rng, case) if rng.random() < 0.25 else case


def _of_6_0(rng: random.Random, settings: TestSettings, total: int) -> TestSettings:
    """Settings that came with release 6.0."""
    inferred = not settings.use_token_latencies and rng.random() < 0.1
    return replace(
        settings,
        accuracy_sample_count_override=rng.choice([0, 0, rng.randint(1, total)]),
        infer_token_latencies=inferred,
        token_latency_scaling_factor=rng.randint(1, 300) if inferred else 0,
    )


def _audited(rng: random.Random, case: Case) -> Case:
    """With an audit.config as the compliance tests have it, or one that overrides many keys."""
    settings = case.settings
    lines = {
        "*.*.test05": 0,
        "*.*.mode": rng.choice([0, 1, 2]),
        "*.*.min_query_count": rng.randint(1, 300),
        "*.*.min_duration": rng.randint(0, 10),
        "*.*.max_query_count": rng.randint(0, 500),
        "*.*.performance_issue_unique": rng.choice([0, 1]),
        "*.*.performance_issue_same": rng.choice([0, 1]),
        "*.*.performance_issue_same_index": rng.randrange(min(case.performance, 9)),
        "*.*.performance_sample_count_override": rng.randint(1, case.performance),
        "*.*.accuracy_log_probability": rng.choice([0, 5, 12.5, 100]),
        "*.*.accuracy_log_sampling_target": rng.randint(0, 99),
        "*.*.accuracy_log_rng_seed": rng.getrandbits(40),
        "*.*.qsl_rng_seed": rng.getrandbits(64),
        "*.*.sample_index_rng_seed": rng.getrandbits(64),
        "*.*.schedule_rng_seed": rng.getrandbits(64),
        "*.*.test05_qsl_rng_seed": rng.getrandbits(64),
        f"*.{settings.scenario.name}.target_latency_percentile": rng.choice([90, 95, 99]),
        f"*.{settings.scenario.name}.samples_per_query": rng.randint(1, 9),
        f"model.{settings.scenario.name}.min_query_count": 7,  # of a model: an audit file is read for none
    }
    kept = rng.sample(sorted(lines), rng.choice([1, 3, 6]))
    text = "# drawn\n" + "".join(f"{key} = {lines[key]}\n" for key in kept)
    if rng.random() < 0.4:
        text += "*.*.test05 = 1\n"
    return replace(case, audit=text) if _can_run(text, case) else case


def _can_run(audit: str, case: Case) -> bool:
    """Does the official code stay within its lists, and load no more than 12 sets?"""
    name = case.settings.scenario.name
    settings = apply_official(audit.encode(), "*", name, case.settings, is_rules=False).settings
    try:
        size = effective(settings, case.total, case.performance).performance_sample_count
    except SettingsError:
        return False
    if settings.performance_issue_unique and size > 5000:
        return False
    if settings.mode is Mode.PerformanceOnly:
        return size <= case.total
    return size <= case.total <= 12 * size and not settings.performance_issue_same_index


def draw_all(seed: int, count: int, revision: Revision) -> Iterator[Case]:
    rng = random.Random(seed)
    for _ in range(count):
        yield draw(rng, revision)
