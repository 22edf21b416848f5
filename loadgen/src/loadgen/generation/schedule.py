"""When queries are due. Pure: effective settings in, columns of nanoseconds out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadgen.contracts import I64
from loadgen.generation.rng import Indices, Mt19937, exponential_gaps_ns
from loadgen.generation.samples import LoadableSet, offline_samples, query_indices
from loadgen.settings import EffectiveSettings, Mode, Revision, Scenario

_BLOCK = 1 << 16  # gaps drawn at a time


@dataclass(frozen=True)
class Series:
    """The queries of one loaded set, as columns."""

    query_count: int
    due_ns: I64
    """Server: for each query, nanoseconds after the start at which it is due. Else empty: the system sets the pace."""
    indices: Indices
    """Sample indices of all queries in issue order; each query has `samples_per_query` of them."""
    samples_per_query: int
    duration_ns: int
    """When one query more would be due."""


def plan(settings: EffectiveSettings, mode: Mode, loaded: LoadableSet) -> Series:
    """All queries that one loaded set could need, pre-generated as the official LoadGen does."""
    min_queries, samples_per_query = _sizes(settings, mode, loaded)
    count, due_ns, duration_ns = _times(settings, mode, min_queries, len(loaded.indices))
    draws_for = _equal_issue_base(settings, mode, loaded)
    indices = query_indices(settings, mode, loaded, count, draws_for)
    return Series(count, due_ns, indices, samples_per_query, duration_ns)


def _sizes(settings: EffectiveSettings, mode: Mode, loaded: LoadableSet) -> tuple[int, int]:
    """(queries after which generation may stop, samples of each query)."""
    size, offline = len(loaded.indices), settings.scenario is Scenario.Offline
    queries, samples = _equal_issue_base(settings, mode, loaded), settings.samples_per_query
    if mode is Mode.AccuracyOnly:
        return queries, loaded.distinct if offline else samples
    if not settings.requested.sample_concatenate_permutation:
        return queries, samples
    padded = queries + -queries % size
    if not offline:
        return padded, samples
    # Release 4.0 pads the query count of an Offline test whose samples need no padding. Only the
    # first of these queries is ever issued.
    quirk = settings.requested.revision is Revision.V4_0 and samples % size == 0
    return padded if quirk else queries, offline_samples(settings, size)


def _equal_issue_base(settings: EffectiveSettings, mode: Mode, loaded: LoadableSet) -> int:
    """The query count before equal issue pads it; it sizes the equal-issue distribution."""
    if mode is Mode.AccuracyOnly or settings.performance_issue_unique:
        offline_sweep = settings.scenario is Scenario.Offline and mode is Mode.AccuracyOnly
        samples = loaded.distinct if offline_sweep else settings.samples_per_query
        return len(loaded.indices) // samples
    return settings.min_query_count


def expected_queries(settings: EffectiveSettings, set_size: int) -> int:
    """About how many queries a performance test generates; for Server the expectation of its random number."""
    if settings.scenario is Scenario.Offline:
        return settings.min_query_count
    cover_ns = 0 if settings.performance_issue_unique else settings.target_duration_ms * 1_000_000
    if settings.scenario is not Scenario.Server:
        cover_ns *= 2
    at_least = settings.min_query_count + (set_size if settings.requested.sample_concatenate_permutation else 0)
    return max(at_least, int(cover_ns * settings.target_qps / 1e9))


def _times(settings: EffectiveSettings, mode: Mode, min_queries: int, set_size: int) -> tuple[int, I64, int]:
    """(query count, due times in ns from the start, when one query more would be due).

    Server: a Poisson process at `target_qps` until the target duration is covered. The others: a fixed
    interval for twice the target duration, of which only the count matters.
    """
    server = settings.scenario is Scenario.Server
    cover_ns = settings.target_duration_ms * 1_000_000 * (1 if server else 2)
    if mode is Mode.AccuracyOnly or settings.performance_issue_unique:
        cover_ns = 0
    step = 1
    if settings.requested.sample_concatenate_permutation and settings.scenario is not Scenario.Offline:
        step = 1 if mode is Mode.AccuracyOnly else set_size
    if server:
        times = _poisson(settings, cover_ns, min_queries, step)
        return len(times) - 1, times[:-1], int(times[-1])
    gap_ns = int(1.0 / settings.target_qps * 1e9)
    needed = 1 + -(-cover_ns // gap_ns) if gap_ns and cover_ns else 0
    count = _rounded(needed, min_queries, step)
    return count, np.empty(0, np.int64), count * gap_ns


def _rounded(needed: int, min_queries: int, step: int) -> int:
    """The smallest min_queries + k * step (k >= 0) that is at least `needed`."""
    return min_queries + max(0, -(-(needed - min_queries) // step)) * step


def _poisson(settings: EffectiveSettings, cover_ns: int, min_queries: int, step: int) -> I64:
    rng = Mt19937(settings.schedule_rng_seed)
    blocks = [np.zeros(1, np.int64)]
    count = 1
    while blocks[-1][-1] < cover_ns:
        gaps = exponential_gaps_ns(rng, _BLOCK, settings.target_qps)
        blocks.append(blocks[-1][-1] + np.cumsum(gaps))
        count += _BLOCK
    times = np.concatenate(blocks)
    covered = int(np.searchsorted(times, cover_ns, side="left"))  # times before cover_ns
    total = _rounded(1 + covered if cover_ns else 0, min_queries, step)
    if total >= len(times):
        gaps = exponential_gaps_ns(rng, total + 1 - len(times), settings.target_qps)
        times = np.concatenate([times, times[-1] + np.cumsum(gaps)])
    return times[: total + 1]
