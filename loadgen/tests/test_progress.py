"""How far a test is: what is said of it while it runs, and what it costs to look."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from unittest.mock import Mock

import numpy as np
import pytest

from loadgen.execute import prepare
from loadgen.progress import Progress, Reporter
from loadgen.run import run
from loadgen.settings import Mode, Scenario
from loadgen.state import Job, progress_of
from loadgen.testing import FakeClock, FakeLibrary, FakeSystem
from loadgen.testing import short_test as settings

MS = 1_000_000


def test_a_look_at_millions_of_samples_copies_no_column() -> None:
    """ResNet-50's Offline test at 43,000 images/s has 28 million: a look took half a second of a core, four times a
    second."""
    asked = settings(Scenario.Offline, offline_expected_qps=1e7)
    clock, detail = FakeClock(), Mock()
    state = prepare(Job(FakeSystem(), FakeLibrary(), clock, detail), asked)
    part = state.parts[0]
    part.start_ns = 1000
    part.scheduled.append(1000)
    part.issued.append(1000)
    answered = np.arange(0, 1_100_000, 10)
    state.recorder.done_view[answered] = 1000 + 5 * MS + answered
    clock.sleep_until(4_000 * MS)
    tracemalloc.start()
    try:
        seen = progress_of(state, part)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen is not None
    assert (seen.completed, seen.issued, seen.total) == (110_000, 1_100_000, 1_100_000)
    assert seen.p50_ns == pytest.approx(5 * MS + 550_000, rel=0.01)
    assert seen.p99_ns == pytest.approx(5 * MS + 1_089_000, rel=0.01)
    assert not seen.waiting
    assert peak < 4e6  # the column is 8.8e6
    clock.sleep_until(12_000 * MS)
    silent = progress_of(state, part)
    assert silent is not None
    assert silent.waiting == (1, 2, 3)


def test_looks_that_take_long_are_rare() -> None:
    looks = []

    def look() -> Progress:
        began = time.thread_time()
        while time.thread_time() - began < 0.1:
            pass
        looks.append(began)
        return Progress(1, 1, 1, 1.0, 1.0, None, None, None)

    with Reporter(look, lambda _: None):
        time.sleep(1.2)
    assert len(looks) <= 2  # one, and the last


def test_progress_of_an_accuracy_test_counts_all_sets_that_are_loaded() -> None:
    """Not each by itself: RetinaNet's 24,781 samples are 388 sets, and every one of them was about to end."""
    seen: list[Progress] = []
    clock = FakeClock()

    class SlowToLoad(FakeLibrary):
        def load(self, indices: Sequence[int]) -> None:
            clock.sleep_until(clock.now_ns() + 1000 * MS)

    asked = settings(Scenario.Offline, mode=Mode.AccuracyOnly)
    run(FakeSystem(clock, MS), SlowToLoad(103, 40), asked, clock=clock, progress=seen.append)
    ends = [one for one in seen if one.completed in (40, 80, 103)]
    assert [one.completed for one in ends] == [40, 80, 103]
    assert all(one.total == 103 and one.issued == one.completed for one in ends)
    assert ends[1].elapsed_s == pytest.approx(1.0, rel=0.1)  # loading the second set took most of it
    assert ends[1].eta_s == pytest.approx(23 / 80 * ends[1].elapsed_s)


def test_a_servers_time_left_is_by_the_schedules_of_all_sets() -> None:
    seen: list[Progress] = []
    clock = FakeClock()
    asked = settings(Scenario.Server, mode=Mode.AccuracyOnly, server_target_qps=10.0)
    run(FakeSystem(clock, MS), FakeLibrary(100, 40), asked, clock=clock, progress=seen.append)
    first = next(one for one in seen if one.completed == 40)
    assert first.eta_s == pytest.approx(seen[-1].elapsed_s - first.elapsed_s, abs=0.2)
    assert seen[-1].eta_s == pytest.approx(0.0, abs=0.01)
