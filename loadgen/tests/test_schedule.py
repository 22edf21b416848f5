"""Properties of what is loaded and when queries are due, against a loop that adds one query after another."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from loadgen.generation import Series, expected_queries, loadable_sets, plan
from loadgen.generation.rng import Mt19937, exponential_gaps_ns
from loadgen.settings import EffectiveSettings, Mode, Revision, Scenario, TestSettings, effective

asked = st.builds(
    TestSettings,
    scenario=st.sampled_from(Scenario),
    single_stream_expected_latency_ns=st.floats(1e4, 1e7),
    multi_stream_expected_latency_ns=st.floats(1e4, 1e7),
    multi_stream_samples_per_query=st.integers(1, 9),
    server_target_qps=st.floats(1, 1e5),
    offline_expected_qps=st.floats(1, 1e5),
    min_duration_ms=st.integers(0, 40),
    min_query_count=st.integers(1, 200),
    qsl_rng_seed=st.integers(0, 2**64 - 1),
    sample_index_rng_seed=st.integers(0, 2**64 - 1),
    schedule_rng_seed=st.integers(0, 2**64 - 1),
    sample_concatenate_permutation=st.booleans(),
    revision=st.sampled_from(Revision),
)
libraries = st.tuples(st.integers(1, 120), st.integers(1, 120)).map(lambda pair: (max(pair), min(pair)))


def first_series(settings: EffectiveSettings, total: int, mode: Mode = Mode.PerformanceOnly) -> Series:
    return plan(settings, mode, loadable_sets(settings, mode, total)[0])


@given(asked, libraries)
def test_a_schedule_is_what_a_loop_would_make(test: TestSettings, library: tuple[int, int]) -> None:
    test = replace(test, sample_concatenate_permutation=False)
    settings = effective(test, *library)
    series = first_series(settings, library[0])
    server = test.scenario is Scenario.Server
    cover_ns = settings.target_duration_ms * 1_000_000 * (1 if server else 2)
    gap_ns = int(1.0 / settings.target_qps * 1e9)
    gaps = exponential_gaps_ns(Mt19937(test.schedule_rng_seed), series.query_count, settings.target_qps).tolist()
    due, at = [], 0
    while ((not due or due[-1] < cover_ns) and cover_ns) or len(due) < settings.min_query_count:
        due.append(at)
        at += gaps[len(due) - 1] if server else gap_ns
    assert series.query_count == len(due)
    assert series.duration_ns == at
    assert series.due_ns.tolist() == (due if server else [])


@given(asked, libraries)
def test_a_performance_test_issues_only_what_is_loaded(test: TestSettings, library: tuple[int, int]) -> None:
    settings = effective(test, *library)
    loaded = loadable_sets(settings, Mode.PerformanceOnly, library[0])[0]
    series = plan(settings, Mode.PerformanceOnly, loaded)
    assert set(series.indices.tolist()) <= set(loaded.indices)
    if test.scenario is not Scenario.Offline:
        assert len(series.indices) == series.query_count * series.samples_per_query
    if test.sample_concatenate_permutation and test.scenario in (Scenario.Server, Scenario.SingleStream):
        counts = Counter(series.indices.tolist())
        assert len(set(counts.values())) == 1, "equal issue: every sample equally often"


@given(asked, libraries)
def test_an_accuracy_test_issues_every_sample_once(test: TestSettings, library: tuple[int, int]) -> None:
    settings = effective(replace(test, mode=Mode.AccuracyOnly), *library)
    sets = loadable_sets(settings, Mode.AccuracyOnly, library[0])
    assert sorted(i for loaded in sets for i in loaded.indices[: loaded.distinct]) == list(range(library[0]))
    for loaded in sets:
        issued = Counter(plan(settings, Mode.AccuracyOnly, loaded).indices.tolist())
        assert set(issued) == set(loaded.indices)
        if test.scenario is not Scenario.MultiStream:  # whose last query is filled up with the set's head
            assert set(issued.values()) == {1}


@given(asked, st.integers(0, 49))
def test_issuing_the_same_sample(test: TestSettings, index: int) -> None:
    test = replace(
        test, performance_issue_same=True, performance_issue_same_index=index, multi_stream_samples_per_query=1
    )
    settings = effective(test, 80, 50)
    loaded = loadable_sets(settings, Mode.PerformanceOnly, 80)[0]
    assert set(first_series(settings, 80).indices.tolist()) == {loaded.indices[index]}


@given(asked)
def test_issuing_unique_samples(test: TestSettings) -> None:
    test = replace(test, performance_issue_unique=True, sample_concatenate_permutation=False)
    settings = effective(replace(test, multi_stream_samples_per_query=1), 80, 50)
    issued = first_series(settings, 80).indices.tolist()
    assert len(issued) == len(set(issued)) == 50


@hypothesis_settings(max_examples=30)
@given(asked, libraries)
def test_the_expected_count_is_near_the_generated_one(test: TestSettings, library: tuple[int, int]) -> None:
    settings = effective(test, *library)
    loaded = loadable_sets(settings, Mode.PerformanceOnly, library[0])[0]
    count = plan(settings, Mode.PerformanceOnly, loaded).query_count
    slack = 6 * np.sqrt(count) + 2 + len(loaded.indices)
    if test.scenario is Scenario.Offline:
        assert count == expected_queries(settings, library[0]) == 1
    assert abs(count - expected_queries(settings, library[0])) <= slack + library[0]
