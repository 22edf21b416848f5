"""What a test is asked to do (`TestSettings`) and what it therefore does (`effective`).

Field names, defaults and derivations are the official LoadGen's; `revision` picks between the
behaviour of its releases 4.0 and 6.0 where they differ. Units stand in the names.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

from loadgen.errors import InputError


class Scenario(enum.Enum):
    """How queries arrive. Values are the official numbers."""

    SingleStream = 0
    MultiStream = 1
    Server = 2
    Offline = 3


class Mode(enum.Enum):
    """What a test measures. Values are the official numbers."""

    SubmissionRun = 0
    AccuracyOnly = 1
    PerformanceOnly = 2
    FindPeakPerformance = 3


class Revision(enum.Enum):
    """The official LoadGen whose behaviour is followed where releases differ."""

    V4_0 = "4.0"
    V6_0 = "6.0"


class SettingsError(InputError):
    """Settings that no test can run with; the message names the field and the next action."""


@dataclass(frozen=True)
class TestSettings:
    """A requested test. Every field of the official `TestSettings`, under its official name."""

    __test__ = False  # not a pytest class

    scenario: Scenario = Scenario.SingleStream
    mode: Mode = Mode.PerformanceOnly

    single_stream_expected_latency_ns: float = 1e6
    single_stream_target_latency_percentile: float = 0.90

    multi_stream_expected_latency_ns: float = 8e6
    multi_stream_target_latency_percentile: float = 0.99
    multi_stream_samples_per_query: int = 8

    server_target_qps: float = 1.0
    server_target_latency_ns: int = 100_000_000
    server_target_latency_percentile: float = 0.99
    server_coalesce_queries: bool = False
    server_find_peak_qps_decimals_of_precision: int = 1
    server_find_peak_qps_boundary_step_size: float = 1.0
    server_max_async_queries: int = 0  # 0: no limit
    server_num_issue_query_threads: int = 0  # 0: the caller's thread issues

    offline_expected_qps: float = 1.0
    sample_concatenate_permutation: bool = False  # "equal issue"

    min_duration_ms: int = 10_000
    max_duration_ms: int = 0  # 0: no limit
    min_query_count: int = 100
    max_query_count: int = 0  # 0: no limit

    qsl_rng_seed: int = 0
    sample_index_rng_seed: int = 0
    schedule_rng_seed: int = 0
    accuracy_log_rng_seed: int = 0
    accuracy_log_probability: float = 0.0
    accuracy_log_sampling_target: int = 0

    test05: bool = False
    test05_qsl_rng_seed: int = 0
    test05_sample_index_rng_seed: int = 0
    test05_schedule_rng_seed: int = 0

    print_timestamps: bool = False
    performance_issue_unique: bool = False
    performance_issue_same: bool = False
    performance_issue_same_index: int = 0
    performance_sample_count_override: int = 0  # 0: the library's own count
    accuracy_sample_count_override: int = 0  # 0: the whole library; revision 6.0 only

    use_token_latencies: bool = False
    server_ttft_latency: int = 100_000_000  # ns
    server_tpot_latency: int = 100_000_000  # ns
    infer_token_latencies: bool = False
    token_latency_scaling_factor: int = 0

    revision: Revision = Revision.V4_0

    def __post_init__(self) -> None:
        for name, kind in (("scenario", Scenario), ("mode", Mode)):
            if not isinstance(value := getattr(self, name), kind):
                known = [f"{kind.__name__}.{one.name}" for one in kind]
                meant = [one for one in known if one.endswith(f".{value}")] or known
                raise SettingsError(f"{name} is {value!r}: give {' or '.join(meant)}")


@dataclass(frozen=True)
class EffectiveSettings:
    """What a requested test comes down to for one scenario and one library."""

    requested: TestSettings
    scenario: Scenario
    mode: Mode
    samples_per_query: int
    target_qps: float
    target_latency_ns: int  # 0 where the scenario has no limit
    target_latency_percentile: float
    max_async_queries: int
    target_duration_ms: int
    min_duration_ms: int
    max_duration_ms: int
    min_query_count: int
    max_query_count: int
    min_sample_count: int
    qsl_rng_seed: int
    sample_index_rng_seed: int
    schedule_rng_seed: int
    accuracy_log_rng_seed: int
    accuracy_log_probability: float
    accuracy_log_sampling_target: int
    print_timestamps: bool
    performance_issue_unique: bool
    performance_issue_same: bool
    performance_issue_same_index: int
    performance_sample_count: int
    accuracy_sample_count: int
    problems: tuple[str, ...]
    """Settings that were replaced or cannot be met: the official `error_invalid_test_settings`."""


TEST05_WARNING = "Test05 flag detected Overriding random seeds"


def with_test05_seeds(settings: TestSettings, seeds: TestSettings | None = None) -> TestSettings:
    """The compliance test TEST05: performance mode with the three alternative seeds, by default its own.

    The official LoadGen takes them from the settings before audit.config was read.
    """
    seeds = seeds or settings
    return replace(
        settings,
        mode=Mode.PerformanceOnly,
        test05=False,  # done
        qsl_rng_seed=seeds.test05_qsl_rng_seed,
        sample_index_rng_seed=seeds.test05_sample_index_rng_seed,
        schedule_rng_seed=seeds.test05_schedule_rng_seed,
    )


def effective(settings: TestSettings, total_count: int, performance_count: int) -> EffectiveSettings:
    """Derive the test that runs from the requested one and the library's two counts.

    Raises SettingsError where the official LoadGen would compute nonsense or never end.
    """
    problems: list[str] = []
    target_qps = _target_qps(settings, problems)
    sample_count = settings.performance_sample_count_override or performance_count
    if total_count < 1 or sample_count < 1:
        raise SettingsError(
            f"the sample library offers {total_count} samples, {sample_count} of them at once: "
            "give it at least one sample (see SampleLibrary.total_count and performance_count)"
        )
    samples_per_query, min_query_count, target_duration_ms = _query_shape(
        settings, target_qps, sample_count, performance_count
    )
    if not samples_per_query:
        raise SettingsError(
            "the query would have no samples: raise offline_expected_qps, min_duration_ms or min_query_count"
        )
    problems += _issue_problems(settings, sample_count)
    _refuse_impossible(settings, _smallest_set(settings, total_count, sample_count))
    percentile, latency_ns, max_async = _limits(settings)
    return EffectiveSettings(
        requested=settings,
        scenario=settings.scenario,
        mode=settings.mode,
        samples_per_query=samples_per_query,
        target_qps=target_qps,
        target_latency_ns=latency_ns,
        target_latency_percentile=percentile,
        max_async_queries=max_async,
        target_duration_ms=target_duration_ms,
        min_duration_ms=settings.min_duration_ms,
        max_duration_ms=settings.max_duration_ms,
        min_query_count=min_query_count,
        max_query_count=settings.max_query_count,
        min_sample_count=min_query_count * samples_per_query,
        qsl_rng_seed=settings.qsl_rng_seed,
        sample_index_rng_seed=settings.sample_index_rng_seed,
        schedule_rng_seed=settings.schedule_rng_seed,
        accuracy_log_rng_seed=settings.accuracy_log_rng_seed,
        accuracy_log_probability=settings.accuracy_log_probability,
        accuracy_log_sampling_target=settings.accuracy_log_sampling_target,
        print_timestamps=settings.print_timestamps,
        performance_issue_unique=settings.performance_issue_unique,
        performance_issue_same=settings.performance_issue_same,
        performance_issue_same_index=settings.performance_issue_same_index,
        performance_sample_count=sample_count,
        accuracy_sample_count=settings.accuracy_sample_count_override or total_count,
        problems=tuple(problems),
    )


_YEARS_NS = 1e18
"""30 years: times beyond 290 cannot be counted in ns."""


def _target_qps(settings: TestSettings, problems: list[str]) -> float:
    """Queries a second (Offline: samples a second) that the schedule is made for."""
    expected_ns = {
        Scenario.SingleStream: settings.single_stream_expected_latency_ns,
        Scenario.MultiStream: settings.multi_stream_expected_latency_ns,
    }
    if settings.scenario in expected_ns:
        latency_ns = expected_ns[settings.scenario]
        if not 0 < latency_ns < _YEARS_NS:
            raise SettingsError(f"the expected latency is {latency_ns:g} ns: set target_latency to what a query takes")
        return 1e9 / latency_ns
    server = settings.scenario is Scenario.Server
    name = "server_target_qps" if server else "offline_expected_qps"
    qps = settings.server_target_qps if server else settings.offline_expected_qps
    if -math.inf < qps < 0:
        problems.append(f"Invalid value for {name} requested. requested: {qps:g} using: 1")
        return 1.0
    if not 1e9 / _YEARS_NS < qps < math.inf:
        raise SettingsError(f"{name} is {qps:g}: a test needs a positive target_qps, of more than a query in 30 years")
    return qps


def _query_shape(
    settings: TestSettings, target_qps: float, sample_count: int, library_count: int
) -> tuple[int, int, int]:
    """(samples per query, minimum query count, target duration in ms)."""
    duration_ms, queries = settings.min_duration_ms, settings.min_query_count
    if settings.scenario is Scenario.Offline:
        if settings.performance_issue_unique:
            return sample_count, 1, 0
        slack = 1.1  # of the official code: the query outlasts the minimum duration by a tenth
        return max(queries, int(slack * (duration_ms / 1000) * target_qps)), 1, 0
    if settings.scenario is Scenario.MultiStream:
        return settings.multi_stream_samples_per_query, queries, duration_ms
    if settings.scenario is Scenario.SingleStream and settings.sample_concatenate_permutation:
        queries = max(queries, int(2.0 * (duration_ms / 1000) * target_qps))
        queries += library_count - queries % library_count  # a whole set more where it divides evenly
    return 1, queries, duration_ms


def _issue_problems(settings: TestSettings, sample_count: int) -> list[str]:
    problems = []
    if settings.performance_issue_same and settings.performance_issue_same_index >= sample_count:
        problems.append(
            "Sample Idx to be repeated in performance_issue_same mode cannot be greater than loaded "
            f"performance_sample_count. Requested index: {settings.performance_issue_same_index} "
            f"performance_sample_count: {sample_count}"
        )
    if settings.performance_issue_same and settings.performance_issue_unique:
        problems.append(
            "Performance_issue_unique and performance_issue_same, both cannot be true at the same time. "
            "performance_issue_unique: 1 performance_issue_same: 1"
        )
    return problems


def _smallest_set(settings: TestSettings, total_count: int, sample_count: int) -> int:
    """Samples in the smallest set that the test loads: an accuracy test ends with what is left over."""
    if settings.mode in (Mode.PerformanceOnly, Mode.FindPeakPerformance):
        return min(sample_count, total_count)
    count = total_count
    if settings.revision is Revision.V6_0:
        count = min(settings.accuracy_sample_count_override or total_count, total_count)
    return count % sample_count or sample_count


def _refuse_impossible(settings: TestSettings, smallest_set: int) -> None:
    """Raise where the official code reads beyond its own lists, computes nonsense or breaks down."""
    _refuse_percentile(settings)
    if not settings.min_query_count and not settings.min_duration_ms and settings.mode is not Mode.AccuracyOnly:
        raise SettingsError("min_query_count and min_duration_ms are 0: a test needs one of them, to issue anything")
    index = settings.performance_issue_same_index
    if settings.performance_issue_same and index >= smallest_set:
        raise SettingsError(
            f"performance_issue_same_index is {index}, but a set of {smallest_set} samples is loaded: "
            f"choose an index below {smallest_set}"
        )
    multi_stream = settings.scenario is Scenario.MultiStream
    if multi_stream and settings.multi_stream_samples_per_query < 1:
        raise SettingsError("multi_stream_samples_per_query is 0: a MultiStream query needs samples")
    if multi_stream and settings.performance_issue_unique and settings.sample_concatenate_permutation:
        raise SettingsError(
            "performance_issue_unique and sample_concatenate_permutation exclude each other in MultiStream: "
            "equal issue asks for more queries than there are unique samples; unset one"
        )


def _refuse_percentile(settings: TestSettings) -> None:
    fields = {
        Scenario.SingleStream: "single_stream_target_latency_percentile",
        Scenario.MultiStream: "multi_stream_target_latency_percentile",
        Scenario.Server: "server_target_latency_percentile",
    }
    if settings.scenario not in fields:
        return
    name = fields[settings.scenario]
    share = getattr(settings, name)
    if not 0 < share < 1:
        raise SettingsError(
            f"{name} is {share:g}: a share of the queries above 0 and below 1, such as 0.99, must be within the limit "
            "(target_latency_percentile = 99 in a file)"
        )


def _limits(settings: TestSettings) -> tuple[float, int, int]:
    """(target percentile, latency limit in ns, outstanding queries allowed; 0 means no limit)."""
    if settings.scenario is Scenario.SingleStream:
        return settings.single_stream_target_latency_percentile, 0, 1
    if settings.scenario is Scenario.MultiStream:
        return settings.multi_stream_target_latency_percentile, 0, 1
    if settings.scenario is Scenario.Offline:
        return 0.99, 0, 1
    return (
        settings.server_target_latency_percentile,
        settings.server_target_latency_ns,
        settings.server_max_async_queries,
    )
