"""Which samples a test issues, and in which order. Pure: effective settings in, columns out.

Source of the algorithms: the official LoadGen's `GenerateLoadableSets` and `GenerateQueries`. The
order of draws matters as much as the draws: distributions that a test does not use still consume
random numbers, because the official code makes them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadgen.contracts import I64
from loadgen.generation.rng import DEFAULT_SEED, Indices, Mt19937, canonicals, shuffle, skip_shuffles, uniform_ints
from loadgen.settings import EffectiveSettings, Mode, Revision, Scenario


@dataclass(frozen=True)
class LoadableSet:
    """Samples that are in memory together."""

    indices: tuple[int, ...]
    """Sample indices in load order; MultiStream repeats its head so that any start has a full query."""
    distinct: int
    """How many of `indices` come before that padding."""


def loadable_sets(settings: EffectiveSettings, mode: Mode, total_count: int) -> list[LoadableSet]:
    """The sets that a test loads one after another; a performance test uses only the first."""
    size = settings.performance_sample_count
    count = total_count
    if settings.requested.revision is Revision.V6_0:
        wanted = settings.accuracy_sample_count if mode is Mode.AccuracyOnly else size
        count = min(wanted, total_count)
    order = list(range(count))
    shuffle(Mt19937(settings.qsl_rng_seed), order)
    padding = settings.samples_per_query - 1 if settings.scenario is Scenario.MultiStream else 0
    return [_padded(order[start : start + size], padding) for start in range(0, count, size)]


def _padded(chunk: list[int], padding: int) -> LoadableSet:
    distinct = len(chunk)
    for i in range(padding):
        chunk.append(chunk[i])  # may read what was just appended, as the official code does
    return LoadableSet(tuple(chunk), distinct)


def query_indices(
    settings: EffectiveSettings, mode: Mode, loaded: LoadableSet, n_queries: int, min_queries: int
) -> Indices:
    """Sample indices of all queries of one series, in issue order, shape [queries * samples]. int64 Offline, where
    the system is given this array, else int32: a fast SingleStream test has many millions.

    n_queries: what the schedule generates; min_queries: see `schedule.plan`, fixes how many numbers
    the equal-issue distribution consumes.
    """
    rng = Mt19937(settings.sample_index_rng_seed)
    accuracy, offline = mode is Mode.AccuracyOnly, settings.scenario is Scenario.Offline
    if offline and not settings.requested.sample_concatenate_permutation:  # in loaded order, nothing is drawn
        count = loaded.distinct if accuracy else offline_samples(settings, len(loaded.indices))
        return _in_turn(settings, loaded, count)
    pool = np.array(loaded.indices, np.int32)
    stride = settings.samples_per_query if settings.scenario is Scenario.MultiStream else 1
    starts = list(range(0, loaded.distinct, stride))

    sweep: list[int] = list(starts)
    if accuracy:
        shuffle(rng, sweep)
    unique = list(starts)
    shuffle(rng, unique)
    concatenate = settings.requested.sample_concatenate_permutation
    passes = -(-min_queries // len(pool))
    equal = _equal_issue(rng, len(pool), passes, concatenate and not offline)

    if offline:
        return _shuffled(settings, rng, loaded, len(pool) if accuracy else offline_samples(settings, len(pool)))
    if settings.performance_issue_unique:
        choice: Indices = np.array(unique[:n_queries], np.int64)
    elif settings.performance_issue_same:
        choice = np.full(n_queries, settings.performance_issue_same_index, np.int64)
    elif equal and settings.scenario is not Scenario.MultiStream:
        choice = np.resize(np.array(equal, np.int64), n_queries)
    elif accuracy:
        choice = np.array(sweep[:n_queries], np.int64)
    elif settings.scenario is Scenario.MultiStream:
        choice = uniform_ints(rng, n_queries, loaded.distinct)
    else:
        return uniform_ints(rng, n_queries, loaded.distinct, pool)
    if settings.scenario is Scenario.MultiStream:
        choice = (choice[:, None] + np.arange(settings.samples_per_query)).ravel()
    issued: Indices = pool[choice]
    return issued


def _equal_issue(rng: Mt19937, size: int, passes: int, wanted: bool) -> list[int]:
    """Positions such that each sample comes once a pass; every pass shuffles the one before."""
    if not wanted:
        skip_shuffles(rng, size, passes)
        return []
    positions = list(range(size))
    issued: list[int] = []
    for _ in range(passes):
        shuffle(rng, positions)
        issued += positions
    return issued


def _in_turn(settings: EffectiveSettings, loaded: LoadableSet, samples: int) -> I64:
    """The Offline query's samples: the loaded set over and over, then a part of it."""
    pool = np.array(loaded.indices, np.int64)
    if settings.performance_issue_same:  # here it outranks performance_issue_unique
        return np.full(samples, pool[settings.performance_issue_same_index], np.int64)
    return np.resize(pool, samples)


def _shuffled(settings: EffectiveSettings, rng: Mt19937, loaded: LoadableSet, samples: int) -> I64:
    """The same with equal issue: shuffled for each time."""
    if settings.performance_issue_same:
        return _in_turn(settings, loaded, samples)
    issued: list[int] = []
    for _ in range(samples // len(loaded.indices)):
        one_pass = list(loaded.indices)
        shuffle(rng, one_pass)
        issued += one_pass
    return np.array(issued, np.int64)


def offline_samples(settings: EffectiveSettings, set_size: int) -> int:
    """Samples of the Offline query; equal issue rounds up to whole passes over the set."""
    samples = settings.samples_per_query
    if settings.requested.sample_concatenate_permutation and samples % set_size:
        samples += set_size - samples % set_size
    return samples


class LogSampler:
    """Which samples of a performance test go to the accuracy log.

    The official code seeds the offset from `accuracy_log_rng_seed` but never the generator that is
    drawn from for each sample, so that one keeps mt19937's default seed.
    """

    def __init__(self, settings: EffectiveSettings) -> None:
        self._rng = Mt19937(DEFAULT_SEED)
        self._offset = float(canonicals(Mt19937(settings.accuracy_log_rng_seed), 1)[0])
        self.probability = log_probability(settings)

    def skip(self, count: int) -> None:
        """Pass over samples that are logged anyway; they draw all the same."""
        self._rng.raws(2 * count)

    def select(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """For the next `count` issued samples, in id order: is it logged?"""
        values = canonicals(self._rng, count) + self._offset
        selected: np.ndarray[tuple[int], np.dtype[np.bool_]] = values - np.floor(values) <= self.probability
        return selected


def log_probability(settings: EffectiveSettings) -> float:
    """The probability with which a performance test logs a sample; a sampling target overrides it."""
    target = settings.accuracy_log_sampling_target
    if target <= 0:
        return settings.accuracy_log_probability
    expected = int(settings.target_qps * settings.min_duration_ms / 1000)
    if settings.scenario is not Scenario.Offline:  # whose rate counts samples
        expected *= settings.samples_per_query
    return target / max(1, expected, settings.min_sample_count)
