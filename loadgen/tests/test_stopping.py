"""Early stopping in plain words: how many queries are needed, and what is not to be helped by more of them."""

from __future__ import annotations

import numpy as np
import pytest

from loadgen import early_stopping
from loadgen.settings import Scenario, TestSettings, effective
from loadgen.stopping import stop

MS = 1_000_000


@pytest.mark.parametrize(
    ("late", "count", "said"),
    [
        (0, 100, "none of 100 queries was late, but to be 99 % sure that 99 % keep the limit, 459 queries are needed"),
        (
            1,
            500,
            "1 of 500 queries took longer than the limit of 130 ms, but to be 99 % sure that 99 % keep the limit, 662",
        ),
        (50, 1000, "50 of 1,000 queries took longer than the limit of 130 ms, more than the 1 % that may"),
        (0, 459, ""),
    ],
)
def test_a_server_that_needs_more_queries(late: int, count: int, said: str) -> None:
    settings = effective(TestSettings(scenario=Scenario.Server, server_target_latency_ns=130 * MS), 10, 10)
    found = stop(settings, np.sort(np.array([5 * MS] * (count - late) + [200 * MS] * late)), 130 * MS)
    assert found.met == (not said)
    assert found.reason.startswith(said)
    assert bool(found.reason) == bool(said)


@pytest.mark.parametrize(("scenario", "share"), [(Scenario.SingleStream, 0.9), (Scenario.MultiStream, 0.99)])
def test_a_stream_of_too_few_queries(scenario: Scenario, share: float) -> None:
    settings = effective(TestSettings(scenario=scenario), 10, 10)
    needed = early_stopping.min_under(1, share) + 1
    for count in (1, needed - 1, needed):
        found = stop(settings, np.full(count, MS), 0)
        assert found.met == (count == needed)
        if not found.met:
            assert f"are too few to be 99 % sure within which time {100 * share:g} % are answered" in found.reason
            assert f"{needed:,} are needed; let the test run longer (--duration)" in found.reason
