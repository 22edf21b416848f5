"""Everything that can go wrong: each ends in bounded time, INVALID, with the reason, and keeps what was measured."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadgen.contracts import InputError, Ints
from loadgen.logs import LogSettings, metrics_of, read_accuracy, read_detail
from loadgen.results import Result
from loadgen.run import run
from loadgen.settings import Mode, Scenario, SettingsError
from loadgen.testing import FakeClock, FakeLibrary, FakeSystem
from loadgen.testing import run_on_fake_clock as on_fake_clock
from loadgen.testing import short_test as settings

MS = 1_000_000


def fault(issue: Callable[[FakeSystem, int, int], None]) -> Result:
    """A SingleStream run whose system does something wrong."""

    class Faulty(FakeSystem):
        def issue(self, ids: Ints, indices: Ints) -> None:
            assert isinstance(ids, int)
            assert isinstance(indices, int)
            issue(self, ids, indices)

    return run(Faulty(), FakeLibrary(), settings(Scenario.SingleStream), watchdog_s=20, clock=FakeClock())


def test_a_sample_answered_twice_is_an_error_that_names_it() -> None:
    def twice(system: FakeSystem, ids: int, index: int) -> None:
        system.respond.complete(ids)
        if ids == 3:
            system.respond.complete(ids)

    result = fault(twice)
    assert not result.valid
    assert "Attempted to complete a sample twice: id 3" in result.errors


def test_an_unknown_id_is_an_error_that_names_it() -> None:
    def unknown(system: FakeSystem, ids: int, index: int) -> None:
        system.respond.complete(ids)
        system.respond.complete(-5 if ids == 2 else 10**9 if ids == 3 else [])

    result = fault(unknown)
    assert any("unknown sample: id -5" in error for error in result.errors)
    assert any("unknown sample: id 1000000000" in error for error in result.errors)


def test_a_sample_never_answered_ends_by_the_watchdog() -> None:
    def never(system: FakeSystem, ids: int, index: int) -> None:
        if ids != 5:
            system.respond.complete(ids)

    result = fault(never)
    assert any("no answer for 20 s; without one are ids [5" in error for error in result.errors)
    assert result.metrics["result_query_count"] == 5, "what was measured is kept"


def test_a_double_does_not_pass_for_a_sample_that_is_never_answered() -> None:
    issued: list[int] = []

    class Faulty(FakeSystem):
        def issue(self, ids: Any, indices: Any) -> None:
            issued.append(ids[0])
            self.respond.complete([*ids[:-1], ids[0]] if ids[0] == 16 else ids)

    result = run(Faulty(), FakeLibrary(), settings(Scenario.MultiStream), watchdog_s=20, clock=FakeClock())
    assert issued == [0, 8, 16]
    assert "Attempted to complete a sample twice: id 16" in result.errors
    assert any("no answer for 20 s; without one are ids [23" in error for error in result.errors)


def test_a_system_that_raises_ends_invalid_and_is_stopped() -> None:
    def raises(system: FakeSystem, ids: int, index: int) -> None:
        if ids == 4:
            raise RuntimeError("out of memory")
        system.respond.complete(ids)

    result = fault(raises)
    assert any("fake system.issue() raised RuntimeError: out of memory" in error for error in result.errors)
    assert result.metrics["result_query_count"] == 4
    (details,) = result.details
    assert details.startswith("Traceback (most recent call last):")
    assert ", in raises\n" in details
    assert details.endswith("RuntimeError: out of memory\n")


def test_a_system_that_cannot_be_stopped_ends_invalid() -> None:
    class Stuck(FakeSystem):
        def stop(self) -> None:
            raise RuntimeError("a worker does not end")

    result = run(Stuck(), FakeLibrary(), settings(Scenario.Offline))
    assert any("fake system.stop() raised RuntimeError: a worker does not end" in error for error in result.errors)
    assert len(result.details) == 1


def test_a_worker_can_fail_the_run() -> None:
    class HandsOver(FakeSystem):
        def issue(self, ids: Ints, indices: Ints) -> None:
            threading.Thread(target=self.respond.fail, args=("prediction failed", "Traceback: line 7")).start()

    result = run(HandsOver(), FakeLibrary(), settings(Scenario.SingleStream))
    assert "prediction failed" in result.errors
    assert result.details == ("Traceback: line 7",)
    assert not result.valid


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    log = LogSettings(tmp_path)

    class Interrupted(FakeSystem):
        def issue(self, ids: Ints, indices: Ints) -> None:
            if ids == 20:
                raise KeyboardInterrupt
            super().issue(ids, indices)

    system, library = Interrupted(), FakeLibrary()
    result = run(system, library, settings(Scenario.SingleStream), log=log)
    assert result.interrupted
    assert not result.valid
    assert result.metrics["result_query_count"] == 20
    assert system.calls[-1] == "stop"
    assert library.unloaded
    assert any("Interrupted" in entry.value for entry in read_detail(log.path("detail.txt")) if entry.is_error)


def test_a_system_that_cannot_warm_up_ends_invalid() -> None:
    class Cold(FakeSystem):
        def warm_up(self, indices: Any) -> None:
            raise RuntimeError("too cold")

    system, library = Cold(), FakeLibrary()
    result = run(system, library, settings(Scenario.Server))
    assert not result.valid
    assert any("fake system.warm_up() raised RuntimeError: too cold" in error for error in result.errors)
    assert not system.queries
    assert library.unloaded == library.loaded


def test_a_library_that_cannot_load_ends_invalid() -> None:
    class Broken(FakeLibrary):
        def load(self, indices: Any) -> None:
            raise OSError("sample 7 is unreadable")

    system = FakeSystem()
    result = run(system, Broken(), settings(Scenario.Offline))
    assert not result.valid
    assert "sample 7 is unreadable" in result.reasons[0]
    assert system.calls == ["start", "stop"]


def test_samples_that_the_user_must_mend_are_raised_on_and_nothing_is_written(tmp_path: Path) -> None:
    class Damaged(FakeLibrary):
        def load(self, indices: Any) -> None:
            raise InputError("7.JPEG is cut short: put the official file there")

    system, log = FakeSystem(), LogSettings(outdir=tmp_path)
    with pytest.raises(InputError, match="cut short: put the official file there"):
        run(system, Damaged(), settings(Scenario.Offline), log=log)
    assert system.calls == ["start", "stop"]
    assert list(tmp_path.iterdir()) == []


def test_an_input_error_while_the_clock_runs_keeps_what_was_measured() -> None:
    def late(system: FakeSystem, ids: int, index: int) -> None:
        if ids == 5:
            raise InputError("the model has gone")
        system.respond.complete(ids)

    result = fault(late)
    assert not result.valid
    assert "the model has gone" in result.reasons[0]


@pytest.mark.parametrize(
    ("scenario", "changes", "word"),
    [
        (Scenario.Server, {"server_target_qps": 0.0}, "server_target_qps is 0"),
        *(
            (Scenario.Server, {"server_target_qps": float(x)}, f"server_target_qps is {x}")
            for x in ("nan", "inf", "-inf")
        ),
        (Scenario.Server, {"server_target_qps": 1e-300}, "more than a query in 30 years"),
        (Scenario.Offline, {"offline_expected_qps": float("nan")}, "offline_expected_qps is nan"),
        (Scenario.SingleStream, {"single_stream_expected_latency_ns": float("inf")}, "expected latency is inf"),
        (Scenario.MultiStream, {"multi_stream_expected_latency_ns": float("nan")}, "expected latency is nan"),
        (Scenario.Offline, {"offline_expected_qps": 0.0}, "offline_expected_qps is 0"),
        (Scenario.SingleStream, {"single_stream_expected_latency_ns": 0}, "expected latency is 0"),
        (
            Scenario.SingleStream,
            {"performance_issue_same": True, "performance_issue_same_index": 100},
            "performance_issue_same_index is 100",
        ),
        (Scenario.Offline, {"mode": Mode.FindPeakPerformance}, "only supported in Server"),
        (
            Scenario.SingleStream,
            {"single_stream_target_latency_percentile": 1.0},
            "percentile is 1: a share .* below 1",
        ),
        (Scenario.MultiStream, {"multi_stream_target_latency_percentile": 0.0}, "percentile is 0: a share .* above 0"),
        (Scenario.Server, {"server_target_latency_percentile": -0.5}, "percentile is -0.5"),
        (Scenario.Server, {"server_target_latency_percentile": float("nan")}, "percentile is nan"),
        (Scenario.Server, {"min_query_count": 0, "min_duration_ms": 0}, "min_query_count and min_duration_ms are 0"),
        (Scenario.Offline, {"min_query_count": 0, "offline_expected_qps": 0.5}, "the query would have no samples"),
        (
            Scenario.SingleStream,
            {"single_stream_expected_latency_ns": 1e-3, "min_duration_ms": 10**6},
            "GB of memory are free: raise single_stream_expected_latency_ns \\(now 0.001\\)",
        ),
        (Scenario.Server, {"server_target_qps": 1e12, "min_duration_ms": 10**6}, "lower server_target_qps"),
        (Scenario.Offline, {"offline_expected_qps": 1e12, "min_duration_ms": 10**6}, "lower offline_expected_qps"),
        (
            Scenario.MultiStream,
            {"min_query_count": 10**14},
            "800,000,000,000,000 samples",
        ),
    ],
)
def test_impossible_settings_are_refused_before_anything_runs(
    scenario: Scenario, changes: dict[str, Any], word: str
) -> None:
    system = FakeSystem()
    with pytest.raises(SettingsError, match=word):
        run(system, FakeLibrary(), settings(scenario, **changes))
    assert system.calls == []


@pytest.mark.parametrize("scenario", list(Scenario))
def test_a_test_may_ask_for_no_queries_but_a_time(scenario: Scenario) -> None:
    result, _, _ = on_fake_clock(settings(scenario, min_query_count=0), 2 * MS)
    assert result.metrics["result_query_count"] > 0  # type: ignore[operator]
    assert not result.errors


def test_tokens_that_are_not_counted_are_errors() -> None:
    asked = settings(Scenario.SingleStream, use_token_latencies=True)
    result = run(FakeSystem(), FakeLibrary(), asked)
    assert any("n_tokens argument missing" in error for error in result.errors)
    assert any("before it's first token" in error for error in result.errors)


def test_tokens_of_a_test_that_measured_nothing_are_logged_as_0(tmp_path: Path) -> None:
    class Broken(FakeSystem):
        def issue(self, ids: Ints, indices: Ints) -> None:
            raise RuntimeError("out of memory")

    for scenario in Scenario:
        log = LogSettings(tmp_path / scenario.name)
        result = run(Broken(), FakeLibrary(), settings(scenario, use_token_latencies=True), log=log)
        assert not result.valid
        assert "Result is : INVALID" in log.path("summary.txt").read_text()


@pytest.mark.parametrize(("jump_ms", "words"), [(10, "0.1%"), (500, "1%"), (-3_600_000, "1%")])
def test_a_clock_that_jumps_is_noticed(jump_ms: int, words: str) -> None:
    clock = FakeClock()

    def jump() -> None:
        clock.wall_offset_ns += jump_ms * MS

    clock.call_at(clock.now_ns() + 1500 * MS, jump)
    result = run(FakeSystem(clock, MS), FakeLibrary(), settings(Scenario.Server, min_duration_ms=3000), clock=clock)
    told = result.warnings if words == "0.1%" else result.reasons
    assert any(f"differ by more than {words}!" in message for message in told)
    assert result.valid == (words == "0.1%")


_ENDLESS = """
import sys
from pathlib import Path
from loadgen.logs import LogSettings
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings
from loadgen.testing import FakeLibrary, FakeSystem

scenario = Scenario[sys.argv[1]]
asked = TestSettings(scenario=scenario, min_duration_ms=60_000, single_stream_expected_latency_ns=1e4,
                     multi_stream_expected_latency_ns=1e5, server_target_qps=2000.0, offline_expected_qps=1000.0)

class System(FakeSystem):
    def issue(self, ids, indices):
        if scenario is not Scenario.Offline:  # Offline: never answered
            super().issue(ids, indices)
        if len(self.queries) == (101 if scenario is not Scenario.Offline else 0):
            print("running", flush=True)

result = run(System(), FakeLibrary(), asked, log=LogSettings(Path(sys.argv[2])))
sys.exit(130 if result.interrupted and not result.valid else 1)
"""


@pytest.mark.parametrize("scenario", list(Scenario))
def test_a_real_ctrl_c_ends_a_real_process_soon(scenario: Scenario, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ENDLESS, scenario.name, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["interrupted"]
    assert not record["valid"]
    assert (record["query_count"] > 100) == (scenario is not Scenario.Offline)
    assert metrics_of(read_detail(tmp_path / "mlperf_log_detail.txt"))["error_runtime"].startswith("Interrupted")


@pytest.mark.parametrize("unknown", [-1, 10**6])
def test_an_unknown_id_among_others_spoils_only_itself(unknown: int, tmp_path: Path) -> None:
    class Mixed(FakeSystem):
        def issue(self, ids: Any, indices: Any) -> None:
            some = [*ids, unknown]
            offsets = range(0, 2 * len(some) + 1, 2)
            self.respond.first_token(some, b"f" * 2 * len(some), offsets)
            self.respond.complete(some, b"ab" * len(some), offsets, [3] * len(some))

    asked = settings(Scenario.Server, min_duration_ms=0, use_token_latencies=True, accuracy_log_probability=1.0)
    result = run(Mixed(), FakeLibrary(), asked, log=LogSettings(tmp_path))
    assert result.metrics["result_query_count"] == 64
    assert all(f"unknown sample: id {unknown}" in error for error in result.errors)
    entries = list(read_accuracy(tmp_path / "mlperf_log_accuracy.json"))
    assert {(e.data, e.token_data, e.token_count) for e in entries} == {(b"ab", b"f" * 2, 3)}
