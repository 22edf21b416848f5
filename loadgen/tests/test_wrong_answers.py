"""Answers that nobody asked for: before their query, twice at once, of an earlier test. None is counted."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import loadgen.compat as lg
from loadgen import recorder as recorder_module
from loadgen.clock import RealClock
from loadgen.logs import metrics_of, read_detail
from loadgen.notes import Errors
from loadgen.recorder import Recorder
from loadgen.run import run
from loadgen.settings import Scenario
from loadgen.spool import Spool
from loadgen.state import refuse_early
from loadgen.testing import FakeClock, FakeLibrary, FakeSystem
from loadgen.testing import short_test as settings


class Guessing(FakeSystem):
    """Answers the samples of the query after the one that it is given; the first two itself."""

    ahead = 1

    def issue(self, ids: Any, indices: Any) -> None:
        ones = [ids] if isinstance(ids, int) else [int(one) for one in ids]
        self.queries.append(ones)
        if len(self.queries) < 3:
            self.respond.complete(ones)
        self.respond.complete([one + self.ahead * len(ones) for one in ones])


@pytest.mark.parametrize("scenario", [Scenario.SingleStream, Scenario.MultiStream, Scenario.Server])
def test_an_answer_before_its_query_is_an_error_that_names_it_and_counts_for_nothing(scenario: Scenario) -> None:
    asked = settings(scenario, min_duration_ms=20)
    result = run(Guessing(), FakeLibrary(), asked, watchdog_s=5)
    first = {Scenario.MultiStream: 8}.get(scenario, 1)
    assert not result.valid
    assert any(f"before its query was issued: id {first}" in error for error in result.errors), result.errors
    assert (result.latencies_ns >= 0).all()
    assert result.query_count > len(result.columns.issued_ns)  # type: ignore[union-attr]


def test_an_answer_that_comes_while_times_are_compared_is_not_early() -> None:
    class Answered(np.ndarray[Any, Any]):
        """Of a thread that answers once the times have been looked at."""

        def __lt__(self, other: Any) -> Any:
            earlier = np.asarray(self) < other
            self[:] = 7
            return earlier

    failures: list[str] = []
    recorder = SimpleNamespace(
        done_view=np.zeros(1, np.int64).view(Answered), first=(), needs_first=False, fail=failures.append
    )
    part = SimpleNamespace(series=SimpleNamespace(samples_per_query=1), issued=[5], checked=0, first_id=0)
    refuse_early(SimpleNamespace(recorder=recorder), part)  # type: ignore[arg-type]
    assert failures == []


def test_a_run_whose_queries_are_answered_ahead_ends_soon() -> None:
    """Within 8,192 queries, not after the hour that it was to last."""
    asked = settings(Scenario.SingleStream, min_duration_ms=3_600_000, single_stream_expected_latency_ns=1e6)
    result = run(Guessing(), FakeLibrary(), asked)
    assert result.query_count <= 8192
    assert "result_qps_with_loadgen_overhead" not in result.metrics or result.sample_count <= 2


def test_a_first_token_before_its_query_is_an_error() -> None:
    class Early(FakeSystem):
        def issue(self, ids: Any, indices: Any) -> None:
            if ids == 0:
                self.respond.first_token(0)
                self.respond.first_token(7)
            if ids not in (0, 7):
                self.respond.first_token(ids)
            self.respond.complete(ids, n_tokens=3)

    result = run(Early(), FakeLibrary(), settings(Scenario.SingleStream, use_token_latencies=True, min_duration_ms=0))
    assert any("A first token came" in error and error.endswith("id 7") for error in result.errors), result.errors


def test_an_answer_timed_before_its_first_token_is_an_error() -> None:
    class Backwards(FakeSystem):
        def issue(self, ids: Any, indices: Any) -> None:
            began = RealClock.now_ns()
            while RealClock.now_ns() < began + 1000:
                pass
            self.respond.first_token(ids)
            self.respond.complete(ids, n_tokens=3, at_ns=began if ids == 5 else None)

    asked = settings(Scenario.SingleStream, use_token_latencies=True, min_duration_ms=0)
    result = run(Backwards(), FakeLibrary(), asked)
    assert any("before its first token: id 5" in error for error in result.errors), result.errors


# Two threads that answer one sample at once.

WAYS: dict[str, Callable[[Recorder, int], None]] = {
    "one id": lambda r, k: r.complete(8 * k, b"a", None, 5),
    "few ids": lambda r, k: r.complete([8 * k, 8 * k + 1, 8 * k + 2], b"abc", [0, 1, 2, 3], [5] * 3),
    "many ids": lambda r, k: r.complete(
        np.arange(8 * k, 8 * k + 20) % r.count, bytes(20), np.arange(21), np.full(20, 5)
    ),
}
KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "times": lambda count: {},
    "tokens": lambda count: {"tokens": True},
    "logged": lambda count: {"keep": np.ones(count, bool), "spool": Spool()},
    "some logged": lambda count: {"keep": np.arange(count) % 16 == 0, "spool": Spool()},
}


@pytest.fixture
def often() -> Iterator[None]:
    """Threads change as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("needs_lock", [False, True], ids=["", "as without the interpreter's lock"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("mine", "yours"),
    [("one id", "one id"), ("few ids", "few ids"), ("many ids", "many ids"), ("one id", "many ids")],
)
def test_of_two_answers_at_once_one_is_refused(
    mine: str, yours: str, kind: str, needs_lock: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if needs_lock or recorder_module.answers_need_lock():
        monkeypatch.setattr(recorder_module, "answers_need_lock", lambda: True)
    times, errors = 400, Errors()
    recorder = Recorder(8 * times, RealClock(), errors, **KINDS[kind](8 * times))
    given = [0, 0]
    barrier = threading.Barrier(2)

    def answer(which: int, way: str) -> None:
        for k in range(times):
            barrier.wait()
            WAYS[way](recorder, k)
            given[which] += {"one id": 1, "few ids": 3, "many ids": 20}[way]

    threads = [threading.Thread(target=answer, args=pair) for pair in enumerate((mine, yours))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = np.count_nonzero(recorder.done_view)
    assert errors.count == sum(given) - taken, "each double is noticed"
    if recorder.spool is not None and recorder.keep is not None:
        logged = [one for block in recorder.spool.take() for one in block.ids.tolist()]
        assert len(logged) == len(set(logged)) == np.count_nonzero(recorder.keep & (recorder.done_view != 0))


@pytest.mark.skipif(recorder_module.answers_need_lock(), reason="an answer of one id takes the lock here")
@pytest.mark.parametrize(("kind", "ids"), [*((kind, 35) for kind in KINDS), ("times", [35, 34, 62])])
def test_an_answer_that_comes_while_many_are_looked_at_and_marked_is_noticed(kind: str, ids: Any) -> None:
    errors = Errors()
    recorder = Recorder(64, RealClock(), errors, **KINDS[kind](64))
    single = threading.Thread(target=lambda: recorder.complete(ids, b"a", None, 5))
    look = recorder._fresh

    def between(rows: Any) -> Any:
        found = look(rows)
        single.start()
        while not recorder.done[35] and kind != "logged":  # whose answers of one id take the lock, too
            pass
        return found

    recorder._fresh = between  # type: ignore[method-assign]
    recorder.complete(np.arange(20, 60), bytes(40), np.arange(41), np.full(40, 5))
    single.join()
    doubles = [35] if ids == 35 else [35, 34]
    assert errors.messages == [f"Attempted to complete a sample twice: id {one}" for one in doubles]


# The official API.


def response(sample: Any) -> Any:
    return lg.QuerySampleResponse(sample.id, 0, 0)


def start(folder: Path, issue: Any, scenario: str = "Server", **changes: Any) -> dict[str, Any]:
    """Runs a test as an app does, and reads its detail log."""
    wanted = lg.TestSettings()
    wanted.scenario, wanted.min_duration_ms, wanted.min_query_count = getattr(lg.TestScenario, scenario), 0, 200
    wanted.server_target_qps = wanted.offline_expected_qps = 20_000
    for name, value in changes.items():
        setattr(wanted, name, value)
    log = lg.LogSettings()
    log.log_output.outdir = str(folder)
    system = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(10, 10, lambda indices: None, lambda indices: None)
    try:
        lg.StartTestWithLogSettings(system, library, wanted, log, str(folder / "none"))
    finally:
        lg.DestroySUT(system)
        lg.DestroyQSL(library)
    return metrics_of(read_detail(folder / "mlperf_log_detail.txt"))


@pytest.mark.parametrize("size", [1, 5, 40])
@pytest.mark.parametrize("changes", [{}, {"use_token_latencies": True}, {"accuracy_log_probability": 1.0}])
def test_late_answers_of_an_earlier_test_are_errors_that_name_them(
    tmp_path: Path, size: int, changes: dict[str, Any]
) -> None:
    late: list[Any] = []

    def hold(samples: list[Any]) -> None:
        late.extend(samples)
        if len(late) >= size:
            lg.AbortTest()

    start(tmp_path, hold)
    seen: list[int] = []

    def issue(samples: list[Any]) -> None:
        seen.extend(sample.id for sample in samples)
        if len(seen) == 1:
            if changes.get("use_token_latencies"):
                lg.FirstTokenComplete([response(sample) for sample in late[:size]])
            lg.QuerySamplesComplete([response(sample) for sample in late[:size]])
        if changes.get("use_token_latencies"):
            lg.FirstTokenComplete([response(sample) for sample in samples])
        lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0, 5) for sample in samples])

    found = start(tmp_path, issue, **changes)
    assert found["error_runtime"] == f"Received completion for an old sample: id {late[0].id} is of an earlier test"
    assert found["result_query_count"] == len(seen) == 200
    assert found["result_min_latency_ns"] >= 0
    assert not {sample.id for sample in late} & set(seen)


@pytest.mark.parametrize("double", [[0, 1], [3, 3]])
def test_the_ids_of_a_test_follow_those_of_the_test_before(tmp_path: Path, double: list[int]) -> None:
    seen: list[int] = []

    def issue(samples: list[Any]) -> None:
        seen.extend(sample.id for sample in samples)
        lg.QuerySamplesComplete([response(sample) for sample in samples])

    for _ in double:
        start(tmp_path, issue, "Offline", min_query_count=50)
    assert seen == list(range(seen[0], seen[0] + 100))


def test_a_clock_without_ticks_refuses_nothing() -> None:
    """What is answered in the nanosecond of its issue is answered after it."""
    result = run(FakeSystem(), FakeLibrary(), settings(Scenario.Server), clock=FakeClock(tick_ns=0))
    assert not result.errors
