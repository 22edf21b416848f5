"""Small faults planted in our load generator: the comparison of drawn cases must notice each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cases
import mirror
import numpy as np
import official
import pytest

from loadgen import early_stopping, execute, issuer, results, settings, stopping
from loadgen.compat import api
from loadgen.generation import rng, samples, schedule

SEED, COUNT = 2024, 80
Plant = Callable[[pytest.MonkeyPatch], None]


def _around(module: Any, name: str, fault: Callable[..., Any]) -> Plant:
    """Replace a function; `fault` is given the right one first."""
    right = getattr(module, name)
    return lambda patch: patch.setattr(module, name, lambda *args: fault(right, *args))


def _changed(module: Any, name: str, **changes: Callable[[Any], Any]) -> Plant:
    """A function is given settings in which fields are changed."""

    def fault(right: Callable[..., Any], first: Any, *more: Any) -> Any:
        values = {field: change(getattr(first, field)) for field, change in changes.items()}
        return right(dataclasses.replace(first, **values), *more)

    return _around(module, name, fault)


def _backwards(right: Any, generator: Any, values: list[int]) -> None:
    """Swaps from the end, as many textbooks shuffle."""
    n = len(values)
    if n > 1:
        targets = rng._swap_targets(n, rng.varied_ints(generator, rng._shuffle_spans(n)))
        for i, j in reversed(list(enumerate(targets, 1))):
            values[i], values[j] = values[j], values[i]


def _rounded_gaps(right: Any, generator: Any, count: int, rate: float) -> Any:
    gaps = -np.log(1.0 - rng.canonicals(generator, count)) / rate * 1e9
    return np.rint(gaps).astype(np.int64)


def _one_more_sample(right: Any, *args: Any) -> Any:
    size, queries, duration = right(*args)
    return (size + 1, queries, duration) if size > 1 else (size, queries, duration)


def _kept_seeds(right: Any, audited: Any, seeds: Any) -> Any:
    return dataclasses.replace(audited, mode=settings.Mode.PerformanceOnly)


FAULTS: dict[str, Plant] = {
    "the sample seed is one off": _changed(schedule, "query_indices", sample_index_rng_seed=lambda seed: seed + 1),
    "the shuffle swaps backwards": _around(samples, "shuffle", _backwards),
    "arrival gaps are rounded, not truncated": _around(schedule, "exponential_gaps_ns", _rounded_gaps),
    "the last sample is never drawn": _around(
        samples, "uniform_ints", lambda right, g, count, span, *pool: right(g, count, max(1, span - 1), *pool)
    ),
    "unique sweeps begin one sample later": _around(
        schedule,
        "query_indices",
        lambda right, s, *more: np.roll(right(s, *more), s.performance_issue_unique),
    ),
    "equal issue adds a pass to whole passes": _around(
        samples, "offline_samples", lambda right, s, size: right(s, size) + size * (s.samples_per_query % size == 0)
    ),
    "early stopping's percentile is a thousandth off": _changed(
        results, "stop", target_latency_percentile=lambda p: p - 0.001
    ),
    "early stopping discards one query more": _around(
        early_stopping, "max_over", lambda right, *args: right(*args) + 1
    ),
    "the log sampler is seeded with 0": lambda patch: patch.setattr(samples, "DEFAULT_SEED", 0),
    "loaded sets are one sample short": _changed(
        execute, "loadable_sets", performance_sample_count=lambda count: max(1, count - 1)
    ),
    "means round up": lambda patch: patch.setattr(
        results, "_mean", lambda column: -(-int(column.sum()) // len(column)) if len(column) else 0
    ),
    "an Offline query rounds its samples up": _around(settings, "_query_shape", _one_more_sample),
    "percentiles take the element before": _around(
        results, "percentile", lambda right, ordered, p: int(ordered[max(0, int(len(ordered) * p) - 1)])
    ),
    "a test ends one query late": lambda patch: patch.setattr(
        issuer, "_limits", lambda *series, limits=issuer._limits: (limits(*series)[0] + 1, *limits(*series)[1:])
    ),
    "TEST05 keeps the seeds": _around(api.native, "with_test05_seeds", _kept_seeds),
    "a confidence of 98 %": _around(stopping.early_stopping, "min_under", lambda right, over, p: right(over, p, 0.98)),
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[cases.Case, official.Observed]]:
    """Official runs, made once."""
    folder = tmp_path_factory.mktemp("runs")
    drawn = enumerate(cases.draw_all(SEED, COUNT, official.REVISION))
    return [(case, official.run(case, folder / str(k)).read()) for k, case in drawn]


def test_without_a_fault_nothing_differs(seen: list[tuple[cases.Case, official.Observed]]) -> None:
    assert [k for k, (case, run) in enumerate(seen) if mirror.differences(case, run)] == []


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_noticed(
    name: str, seen: list[tuple[cases.Case, official.Observed]], monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[name](monkeypatch)
    for k, (case, run) in enumerate(seen):
        found = mirror.differences(case, run)
        if found:
            print(f"\n{name}: case {k}, {case.settings.scenario.name} {case.settings.mode.name}: {found[0][:110]}")
            return
    pytest.fail(f"{COUNT} cases did not notice: {name}")
