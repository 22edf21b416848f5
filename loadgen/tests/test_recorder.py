"""Answers in columns: times that the caller brings, ids that cannot be, and what is kept for the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loadgen.notes import MAX_ERRORS, Errors
from loadgen.recorder import Recorder
from loadgen.spool import Spool
from loadgen.testing import FakeClock

COUNT = 60
MS = 1_000_000
KINDS: dict[str, dict[str, Any]] = {
    "times only": {},
    "logged": {"keep": np.ones(COUNT, bool)},
    "tokens": {"tokens": True},
    "logged tokens": {"keep": np.ones(COUNT, bool), "tokens": True},
}
FORMS: dict[str, Callable[[list[int]], Any]] = {"list": list, "tuple": tuple, "array": np.array}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(tick_ns=0)


@pytest.fixture(params=KINDS)
def recorder(clock: FakeClock, request: pytest.FixtureRequest) -> Recorder:
    """Of a run that began 50 ms ago."""
    made = Recorder(COUNT, clock, Errors(), **KINDS[request.param])
    clock.sleep_until(clock.now_ns() + 50 * MS)
    return made


def ago(clock: FakeClock, *ms: float) -> list[int]:
    return [clock.now_ns() - round(one * MS) for one in ms]


def complete(recorder: Recorder, ids: Any, at_ns: Any) -> None:
    """With what each kind of run wants to know."""
    count = np.size(ids)
    recorder.complete(ids, bytes(2 * count), range(0, 2 * count + 1, 2), n_tokens=[3] * count, at_ns=at_ns)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 5, 16, 17, 50])
def test_each_id_has_its_own_time(recorder: Recorder, clock: FakeClock, count: int, form: str) -> None:
    ids, times = list(range(count, 0, -1)), ago(clock, *range(count))
    complete(recorder, FORMS[form](ids), FORMS[form](times))
    assert recorder.done_view[ids].tolist() == times
    assert np.count_nonzero(recorder.done_view) == count
    assert not recorder.errors.messages


@pytest.mark.parametrize("ids", [4, [4], (4, 5, 6), range(4, 24), np.arange(4, 9), np.arange(4, 44)])
@pytest.mark.parametrize("of", [int, np.int64, lambda at: [at]])
def test_one_time_may_stand_for_all(recorder: Recorder, clock: FakeClock, ids: Any, of: Callable[[int], Any]) -> None:
    (at,) = ago(clock, 7)
    complete(recorder, ids, of(at))
    assert set(recorder.done_view[np.atleast_1d(ids)].tolist()) == {at}
    assert not recorder.errors.messages


def test_without_a_time_it_is_now(recorder: Recorder, clock: FakeClock) -> None:
    complete(recorder, [1, 2], None)
    assert recorder.done_view[1:3].tolist() == [clock.now_ns()] * 2


@pytest.mark.parametrize(("wrong_ms", "word"), [(-1, "now it is"), (51, "the run began"), (1e6, "the run began")])
@pytest.mark.parametrize("count", [1, 3, 30])
def test_a_time_of_another_clock_fails_the_run_and_names_the_id(
    recorder: Recorder, clock: FakeClock, count: int, wrong_ms: float, word: str
) -> None:
    times = ago(clock, *range(count - 1), wrong_ms)
    complete(recorder, list(range(count)), times)
    assert recorder.failed
    (message,) = recorder.errors.messages
    assert message.startswith(f"id {count - 1} came with the time {times[-1]} ns")
    assert word in message


def test_one_time_to_come_names_the_first_id(recorder: Recorder, clock: FakeClock) -> None:
    complete(recorder, [8, 9], clock.now_ns() + 1)
    assert recorder.errors.messages[0].startswith("id 8 came with the time")


@pytest.mark.parametrize("count", [2, 20])
def test_unknown_ids_leave_the_others_their_own_times(recorder: Recorder, clock: FakeClock, count: int) -> None:
    ids, times = [COUNT + 7, *range(count), -3], ago(clock, *range(count + 2))
    complete(recorder, np.array(ids), np.array(times))
    assert recorder.done_view[:count].tolist() == times[1:-1]
    assert np.count_nonzero(recorder.done_view) == count
    said = [message.partition(";")[0] for message in recorder.errors.messages]
    assert said == [f"Received completion for an unknown sample: id {one}" for one in (COUNT + 7, -3)]


@pytest.mark.parametrize("count", [2, 20])
def test_a_second_answer_is_an_error_and_changes_nothing(recorder: Recorder, clock: FakeClock, count: int) -> None:
    times = ago(clock, *range(count + 1))
    complete(recorder, [*range(count), 1], times)
    assert recorder.done_view[:count].tolist() == times[:-1]
    assert recorder.errors.messages == ["Attempted to complete a sample twice: id 1"]


@pytest.mark.parametrize("count", [3, 30])
def test_too_few_times_are_an_error_that_names_the_first_id(recorder: Recorder, clock: FakeClock, count: int) -> None:
    complete(recorder, list(range(5, 5 + count)), ago(clock, 1, 2))
    assert recorder.errors.messages == [
        f"{count} ids from id 5 on came with 2 times: pass one, or one for each",
    ]
    assert recorder.failed


@pytest.mark.parametrize("at_ns", [None, 5, [], np.empty(0, np.int64)])
def test_no_ids_are_no_answers(recorder: Recorder, at_ns: Any) -> None:
    recorder.complete([], at_ns=at_ns)
    assert not recorder.errors.messages
    assert not recorder.done_view.any()


def test_first_tokens_have_their_own_times(clock: FakeClock) -> None:
    recorder = Recorder(COUNT, clock, Errors(), tokens=True, first_tokens=True)
    clock.sleep_until(clock.now_ns() + 50 * MS)
    times = ago(clock, 9, 8, 7)
    recorder.first_token([2, COUNT, 4], at_ns=times)
    assert recorder.first[[2, 4]].tolist() == times[::2]
    recorder.first_token(5, at_ns=times[0])
    assert recorder.first[5] == times[0]
    recorder.first_token([6, 7], at_ns=[times[0], clock.now_ns() + 1])
    assert recorder.errors.messages[-1].startswith("id 7 came with the time")


@pytest.mark.parametrize("at", [None, "one", "each"])
def test_a_small_array_is_taken_like_a_list(clock: FakeClock, monkeypatch: pytest.MonkeyPatch, at: str | None) -> None:
    """Id by id: up to 16 of them that is a fraction of what numpy needs for a column."""

    def column(*_: Any) -> Any:
        raise AssertionError("taken as a column")

    recorder = Recorder(COUNT, clock, Errors())
    monkeypatch.setattr(recorder, "_known", column)
    now = clock.now_ns()
    recorder.complete(np.arange(16), at_ns={None: None, "one": now, "each": np.full(16, now)}[at])
    assert recorder.done_view[:16].tolist() == [now] * 16
    assert recorder.answered_at_least == [16]
    with pytest.raises(AssertionError, match="taken as a column"):
        recorder.complete(np.arange(16, 33))


def test_who_waits_is_woken_by_an_answer_that_brings_its_time(recorder: Recorder, clock: FakeClock) -> None:
    clock.call_at(clock.now_ns() + MS, lambda: complete(recorder, np.arange(20), np.full(20, clock.now_ns())))
    assert recorder.wait(3, 10.0)
    assert recorder.done[3] == clock.now_ns()


def test_a_failure_keeps_its_details_and_wakes_who_waits(recorder: Recorder, clock: FakeClock) -> None:
    clock.call_at(clock.now_ns() + MS, lambda: recorder.fail("worker 3 is gone", "Traceback ..."))
    assert recorder.wait(3, 10.0)
    recorder.fail("and worker 4")
    assert recorder.errors.messages == ["worker 3 is gone", "and worker 4"]
    assert recorder.errors.details == ["Traceback ..."]


def test_a_traceback_is_kept_after_many_errors() -> None:
    errors = Errors()
    for k in range(3 * MAX_ERRORS):
        errors.add(f"error {k}")
    errors.add("raised", "Traceback ...")
    assert len(errors.messages) == MAX_ERRORS
    assert errors.count == 3 * MAX_ERRORS + 1
    assert errors.details == ["Traceback ..."]


def test_answers_are_taken_in_order_of_completion(clock: FakeClock) -> None:
    spool, keep = Spool(), np.arange(COUNT) != 5
    recorder = Recorder(COUNT, clock, Errors(), keep=keep, spool=spool)
    recorder.complete(7, b"seven")
    recorder.complete(9, bytearray(b"..nine."), [2, 6])
    recorder.complete(np.array([5, 4]), b"fivefour", [0, 4, 8])
    taken = [piece for block in spool.take() for piece in block.pieces()]
    recorder.complete(3, np.frombuffer(b"three", np.uint8))
    assert taken == [(7, b"seven"), (9, b"nine"), (4, b"four")]
    assert [piece for block in spool.take() for piece in block.pieces()] == [(3, b"three")]
    assert not list(spool.take())


def test_answers_that_outgrow_memory_are_taken_by_who_adds_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadgen.spool.MEMORY_BYTES", 10)
    taken: list[Any] = []
    spool = Spool(lambda: taken.append(list(spool.take())))
    spool.add_one(1, b"1234567890")
    assert not taken
    spool.add(np.array([2, 3]), np.ones(2, bool), b"abcd", [0, 2, 4])
    assert [[list(block.pieces()) for block in blocks] for blocks in taken] == [
        [[(1, b"1234567890")], [(2, b"ab"), (3, b"cd")]]
    ]
