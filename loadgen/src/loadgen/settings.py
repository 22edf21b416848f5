"""What a test is asked to do (`TestSettings`) and what it therefore does (`effective`).

Field names, defaults and derivations are the official LoadGen's; `revision` picks between the
behaviour of its releases 4.0 and 6.0 where they differ. Units stand in the names.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


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


class SettingsError(ValueError):
    """Settings that no test can run with; the message names the field and the next action."""


@dataclass(frozen=True)
class TestSettings:
    """A requested test. Every field of the official `TestSettings`, under its official name."""

    __test__ = False  # not a pytest class

    scenario: Scenario = Scenario.SingleStream
    mode: Mode = Mode.PerformanceOnly

    single_stream_expected_latency_ns: int = 1_000_000
    single_stream_target_latency_percentile: float = 0.90

    multi_stream_expected_latency_ns: int = 8_000_000
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
