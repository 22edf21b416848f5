"""Whole runs on a fake clock: order of calls, stop conditions, verdicts, logs, and everything that can go wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import Ints
from loadgen.logs import LogSettings, metrics_of, read_accuracy, read_detail
from loadgen.progress import Progress
from loadgen.run import run
from loadgen.settings import Mode, Scenario, SettingsError, TestSettings
from loadgen.testing import FakeClock, FakeLibrary, FakeSystem
from loadgen.testing import run_on_fake_clock as on_fake_clock
from loadgen.testing import short_test as settings

MS = 1_000_000


@pytest.mark.parametrize("scenario", list(Scenario))
def test_calls_come_in_the_documented_order(scenario: Scenario) -> None:
    result, system, library = on_fake_clock(settings(scenario), latency_ns=2 * MS if scenario.value < 2 else MS)
    assert system.calls == ["start", "flush", "stop"]
    assert len(library.loaded) == len(library.unloaded) == 1
    assert not result.errors


def test_single_stream_measures_the_latency_and_ends_on_time() -> None:
    result, _, _ = on_fake_clock(settings(Scenario.SingleStream), latency_ns=2 * MS)
    assert result.query_count == 64  # 128 ms: the count, not the time, was missing last
    assert result.metrics["result_50.00_percentile_latency_ns"] == pytest.approx(2 * MS, abs=10)
    assert result.valid, result.reasons


def test_server_counts_latency_from_the_due_time() -> None:
    """A system that blocks for 50 ms makes later queries late; their latency shows it."""
    clock = FakeClock()

    class Blocks(FakeSystem):
        def issue(self, ids: Ints, indices: Ints) -> None:
            if not self.queries:
                clock.sleep_until(clock.now_ns() + 50 * MS)
            super().issue(ids, indices)

    result = run(Blocks(clock, 0), FakeLibrary(), settings(Scenario.Server), clock=clock)
    assert result.metrics["result_max_latency_ns"] == pytest.approx(50 * MS, rel=0.01)
    late = np.count_nonzero(result.latencies_ns > 10 * MS)
    assert late > 300, "about 400 of the first 500 queries were due while the system slept"


def test_too_slow_an_expectation_runs_out_of_queries() -> None:
    result, _, _ = on_fake_clock(settings(Scenario.SingleStream), latency_ns=1000)
    assert not result.valid
    assert any("Ran out of generated queries" in reason for reason in result.reasons)
    assert any("set single_stream_expected_latency_ns to" in r for r in result.reasons)


def test_max_query_count_ends_early() -> None:
    result, _, _ = on_fake_clock(settings(Scenario.SingleStream, max_query_count=10), latency_ns=2 * MS)
    assert result.query_count == 10
    assert any("Max query count reached" in reason for reason in result.reasons)


def test_max_async_queries_ends_the_server() -> None:
    result, _, _ = on_fake_clock(settings(Scenario.Server, server_max_async_queries=5), latency_ns=30 * MS)
    assert any("Too many outstanding queries" in reason for reason in result.reasons)


def test_coalescing_merges_late_queries() -> None:
    clock = FakeClock(tick_ns=1000)
    system = FakeSystem(clock, 0)
    asked = settings(Scenario.Server, server_coalesce_queries=True, server_target_qps=2_000_000.0)
    result = run(system, FakeLibrary(), asked, clock=clock)
    assert result.query_count == sum(map(len, system.queries)) > len(system.queries)


def test_a_system_is_warmed_up_with_each_set_of_samples_before_they_are_issued() -> None:
    class Warming(FakeSystem):
        def warm_up(self, indices: list[int]) -> None:
            assert library.loaded[-1] == indices
            warmed.append((len(indices), sum(map(len, self.queries))))

    warmed: list[tuple[int, int]] = []
    library = FakeLibrary(total_count=103, performance_count=40)
    result = run(Warming(), library, settings(Scenario.Offline, mode=Mode.AccuracyOnly))
    assert result.valid
    assert warmed == [(40, 0), (40, 40), (23, 80)]


def test_accuracy_issues_every_sample_once_and_logs_it(tmp_path: Path) -> None:
    for scenario in Scenario:
        library = FakeLibrary(total_count=103, performance_count=40)
        asked = settings(scenario, mode=Mode.AccuracyOnly, multi_stream_samples_per_query=1)
        log = LogSettings(tmp_path / scenario.name)
        result = run(FakeSystem(), library, asked, log=log)
        entries = list(read_accuracy(log.path("accuracy.json")))
        assert result.valid
        assert [len(loaded) for loaded in library.loaded] == [40, 40, 23]
        assert sorted(entry.qsl_idx for entry in entries) == list(range(103))
        assert all(entry.data == str(entry.qsl_idx).encode() for entry in entries)


def test_performance_logs_the_share_that_was_asked_for(tmp_path: Path) -> None:
    log = LogSettings(tmp_path)
    asked = settings(Scenario.Offline, accuracy_log_probability=0.25)
    result, _, _ = on_fake_clock(asked, log=log)
    entries = list(read_accuracy(log.path("accuracy.json")))
    assert 0.15 < len(entries) / result.sample_count < 0.35
    assert all(entry.data == str(entry.qsl_idx).encode() for entry in entries)


def test_submission_runs_accuracy_then_performance(tmp_path: Path) -> None:
    log = LogSettings(tmp_path)
    asked = settings(Scenario.SingleStream, mode=Mode.SubmissionRun)
    result, system, library = on_fake_clock(asked, latency_ns=2 * MS, log=log)
    assert len(library.loaded) == 2
    assert len(system.queries) == 100 + result.query_count
    assert len(list(read_accuracy(log.path("accuracy.json")))) == 100
    assert result.metrics["result_query_count"] == result.query_count == 64


def test_logs_say_what_the_result_says(tmp_path: Path) -> None:
    log = LogSettings(tmp_path)
    result, _, _ = on_fake_clock(settings(Scenario.Server), log=log)
    logged = metrics_of(read_detail(log.path("detail.txt")))
    assert logged["result_validity"] == ("VALID" if result.valid else "INVALID")
    for key, value in result.metrics.items():
        assert logged[key] == pytest.approx(value, rel=1e-5)
    summary = log.path("summary.txt").read_text()
    assert "SUT name : fake system" in summary
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["schema"] == 1
    assert record["valid"] == result.valid


def test_progress_ends_with_everything_done() -> None:
    seen: list[Progress] = []
    on_fake_clock(settings(Scenario.Offline), progress=seen.append)
    assert seen[-1].completed == seen[-1].issued == seen[-1].total == 220
    assert seen[-1].p50_ns is not None


def test_tokens_are_counted_from_the_first_one() -> None:
    clock = FakeClock(tick_ns=0)

    class Streams(FakeSystem):
        def issue(self, ids: Ints, indices: Ints) -> None:
            begin = clock.now_ns()
            clock.call_at(begin + MS, lambda: self.respond.first_token(ids))
            clock.call_at(begin + 11 * MS, lambda: self.respond.complete(ids, n_tokens=6))

    asked = settings(Scenario.SingleStream, use_token_latencies=True)
    result = run(Streams(clock), FakeLibrary(), asked, clock=clock)
    assert result.metrics["result_first_token_mean_latency_ns"] == MS
    assert result.metrics["result_time_to_output_token_mean"] == 2 * MS
    assert not result.errors


def test_find_peak_finds_the_rate_that_the_system_can_take(tmp_path: Path) -> None:
    """One answer a millisecond: above 1,000 a second the queue grows and the latency limit breaks."""
    clock = FakeClock()

    class OneAtATime(FakeSystem):
        free_ns = 0

        def issue(self, ids: Ints, indices: Ints) -> None:
            self.free_ns = max(self.free_ns, clock.now_ns()) + MS
            clock.call_at(self.free_ns, lambda: self.respond.complete(ids))

    asked = settings(
        Scenario.Server,
        mode=Mode.FindPeakPerformance,
        server_target_qps=100.0,
        server_target_latency_ns=50 * MS,
        server_find_peak_qps_decimals_of_precision=0,
        min_duration_ms=5_000,
    )
    log = LogSettings(tmp_path)
    result = run(OneAtATime(clock), FakeLibrary(), asked, clock=clock, log=log)
    assert 950 < float(result.metrics["result_scheduled_samples_per_sec"]) < 1050
    messages = [e.value for e in read_detail(log.path("detail.txt")) if e.key == "generic_message"]
    assert messages[1] == "FindPeakPerformance: Check validity of the base settings field: 100.000000"
    assert messages[2] == "FindBoundaries: Checking fields [100.000000, 200.000000)"
    found = messages[-1].removeprefix("FindPeakPerformance: Found peak performance field: ")
    assert 950 < float(found) < 1050


def test_find_peak_says_when_the_first_rate_is_too_high() -> None:
    clock = FakeClock()
    asked = settings(Scenario.Server, mode=Mode.FindPeakPerformance, server_target_latency_ns=MS)
    result = run(FakeSystem(clock, 2 * MS), FakeLibrary(), asked, clock=clock)
    assert any("Initial lower bound" in reason for reason in result.reasons)


@pytest.mark.parametrize("scenario", list(Scenario))
def test_the_trace_is_json_and_holds_every_sample(tmp_path: Path, scenario: Scenario) -> None:
    log = LogSettings(tmp_path, enable_trace=True)
    result, _, _ = on_fake_clock(settings(scenario), latency_ns=2 * MS, log=log)
    events = json.loads(log.path("trace.json").read_text())["traceEvents"]
    spans = [e["args"] for e in events if e["name"] == "Sample" and e["ph"] == "b"]
    assert [span["sample_seq"] for span in spans] == list(range(result.sample_count))
    assert [span["complete_ns"] for span in spans] == result.latencies_ns.tolist()


def test_timestamps_are_printed_for_power_meters(capsys: pytest.CaptureFixture[str]) -> None:
    on_fake_clock(settings(Scenario.Server, print_timestamps=True))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Loadgen :: Perf mode start. system_clock Timestamp = 1700000000"
    assert lines[-1] == "Loadgen :: PerfClock/system_clock ratio = 1.0000"
    assert len(lines) == 5


def test_test05_runs_on_its_own_seeds() -> None:
    seeds = {"test05_sample_index_rng_seed": 77, "test05_schedule_rng_seed": 78}
    result, system, _ = on_fake_clock(settings(Scenario.Server, mode=Mode.AccuracyOnly, test05=True, **seeds))
    own = {"sample_index_rng_seed": 77, "schedule_rng_seed": 78}
    _, other, _ = on_fake_clock(settings(Scenario.Server, **own))
    assert result.mode is Mode.PerformanceOnly
    assert system.queries == other.queries
    assert "Test05 flag detected Overriding random seeds" in result.warnings


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scenario": "Server"}, "scenario is 'Server': give Scenario.Server"),
        ({"scenario": "Sever"}, "scenario is 'Sever': give Scenario.SingleStream or Scenario.MultiStream or "),
        ({"mode": "AccuracyOnly"}, "mode is 'AccuracyOnly': give Mode.AccuracyOnly"),
        ({"mode": 2}, "mode is 2: give Mode.SubmissionRun or "),
    ],
)
def test_text_for_a_scenario_or_mode_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        TestSettings(**wrong)
