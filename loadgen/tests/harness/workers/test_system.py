"""A system in a real process of its own: every scenario, every kind of answer, and everything that can go wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.clock import RealClock
from loadgen.contracts import InputError
from loadgen.harness.workers import ProcessSystem
from loadgen.harness.workers.failure import WorkerError
from loadgen.logs import LogSettings, read_accuracy
from loadgen.notes import Errors
from loadgen.recorder import Recorder
from loadgen.results import Result
from loadgen.run import run
from loadgen.settings import Mode, Scenario, TestSettings
from loadgen.testing import FakeClock, FakeLibrary, FakeSystem

HERE = Path(__file__).parent
SHORT = TestSettings(
    min_duration_ms=100,
    min_query_count=700,  # what early stopping needs at the 99th percentile
    single_stream_expected_latency_ns=1000,
    multi_stream_expected_latency_ns=1000,
    server_target_qps=5000.0,
    server_target_latency_ns=1_000_000_000,
    offline_expected_qps=10_000.0,
)


class Heard:
    """A responder that keeps what it is told, in order."""

    def __init__(self, keep: Any = None) -> None:
        self.keep = keep
        self.answers: list[tuple[Any, ...]] = []
        self.firsts: list[tuple[Any, ...]] = []
        self.failures: list[tuple[str, str]] = []

    def complete(
        self, ids: Any, data: Any = None, offsets: Any = None, n_tokens: Any = None, at_ns: Any = None
    ) -> None:
        self.answers.append(_plain(ids, data, offsets, n_tokens, at_ns))

    def first_token(self, ids: Any, data: Any = None, offsets: Any = None, at_ns: Any = None) -> None:
        self.firsts.append(_plain(ids, data, offsets, at_ns))

    def fail(self, message: str, details: str = "") -> None:
        self.failures.append((message, details))


def _plain(*found: Any) -> tuple[Any, ...]:
    return tuple(one.tolist() if hasattr(one, "tolist") and not isinstance(one, memoryview) else one for one in found)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in 60 s"
        time.sleep(0.001)


def run_in_process(name: str, scenario: Scenario = Scenario.SingleStream, **options: Any) -> Result:
    """Run a system of `child_systems`. Changes of the settings, the run's and the system's options are told apart."""
    asked = replace(SHORT, scenario=scenario, **options.pop("settings", {}))
    own = {key: options.pop(key) for key in ("ring_bytes", "stop_timeout_s") if key in options}
    factory = FakeSystem if name == "FakeSystem" else f"child_systems:{name}"
    return run(ProcessSystem(factory, name=name, **own), FakeLibrary(), asked, **options)


@pytest.mark.parametrize(
    "scenario", [Scenario.SingleStream, Scenario.MultiStream, Scenario.Server], ids=lambda scenario: scenario.name
)
def test_each_scenario_is_valid(scenario: Scenario) -> None:
    result = run_in_process("FakeSystem", scenario)
    assert result.valid, result.reasons
    assert result.sample_count >= 700
    assert result.latencies_ns.min() > 0


def test_answers_larger_than_the_ring_arrive_whole(tmp_path: Path) -> None:
    from child_systems import big_answer  # type: ignore[import-not-found]

    log = LogSettings(tmp_path)
    asked = replace(SHORT, scenario=Scenario.MultiStream, mode=Mode.AccuracyOnly)
    system = ProcessSystem("child_systems:Big", name="big", ring_bytes=1 << 16)
    result = run(system, FakeLibrary(32, 32), asked, log=log)
    assert result.valid, result.reasons
    found = {entry.qsl_idx: entry.data for entry in read_accuracy(log.path("accuracy.json"))}
    assert found == {index: big_answer(index) for index in range(32)}
    assert len(found[31]) > 1 << 17


def test_a_performance_run_logs_the_share_that_was_asked_for(tmp_path: Path) -> None:
    log = LogSettings(tmp_path)
    result = run_in_process("FakeSystem", Scenario.Server, log=log, settings={"accuracy_log_probability": 0.25})
    entries = list(read_accuracy(log.path("accuracy.json")))
    assert result.valid, result.reasons
    assert 0.15 * result.sample_count < len(entries) < 0.35 * result.sample_count
    assert all(entry.data == str(entry.qsl_idx).encode() for entry in entries)


def test_tokens_are_timed_in_the_child(tmp_path: Path) -> None:
    log = LogSettings(tmp_path)
    asked = {"use_token_latencies": True, "min_query_count": 64, "min_duration_ms": 0, "mode": Mode.SubmissionRun}
    result = run_in_process("Tokens", log=log, settings=asked)
    assert result.errors == ()
    ttft, tpot = (
        result.metrics[f"result_{name}"] for name in ("first_token_mean_latency_ns", "time_to_output_token_mean")
    )
    assert 1e6 < ttft < result.latencies_ns.mean() - 2e6
    assert tpot > 0
    entries = list(read_accuracy(log.path("accuracy.json")))
    assert {(entry.data, entry.token_count - entry.qsl_idx) for entry in entries} == {(b"all", 2)}


def test_offline_passes_four_million_samples() -> None:
    """64 MB of requests through a ring of 16 MB; most of the answers in one record, others in records of their own."""
    count = 4_000_000
    asked = {"min_query_count": count, "min_duration_ms": 0}
    result = run_in_process("Columns", Scenario.Offline, settings=asked)
    assert result.valid, result.reasons
    assert result.sample_count == count


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("RaisesInStart", ["WorkerError", "did not start in its process: ValueError: no such device"]),
        ("EndsInStart", ["exit code 3 before it was ready", "__main__"]),
        ("NoSuchClass", ["has no attribute 'NoSuchClass'"]),
        ("RaisesInIssue", ["RaisesInIssue.issue() raised ValueError: no room for sample"]),
        ("FailsInThread", ["device lost at sample"]),
        ("KilledInIssue", ["exit code -9 (SIGKILL)"]),
        ("EndsInIssue", ["exit code 7"]),
    ],
)
def test_what_goes_wrong_is_named_soon(name: str, words: list[str]) -> None:
    before = time.monotonic()
    result = run_in_process(name, stop_timeout_s=2.0, settings={"min_query_count": 64})
    assert not result.valid
    text = "\n".join(result.errors)
    assert all(word in text for word in words), text
    assert "Traceback" not in text
    assert time.monotonic() - before < 30


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("RaisesInStart", 'raise ValueError("no such device")'),
        ("RaisesInIssue", 'raise ValueError(f"no room'),
        ("FailsInThread", "the driver's last words"),
    ],
)
def test_a_childs_traceback_reaches_the_result(name: str, line: str) -> None:
    result = run_in_process(name, settings={"min_query_count": 64})
    assert any("child_systems.py" in text and line in text for text in result.details), result.details


def test_an_input_error_of_the_start_is_the_users_fault_here_too() -> None:
    with pytest.raises(InputError, match=r"Unconfigured did not start in its process: device\.toml: write a port"):
        run_in_process("Unconfigured")


def test_what_is_wrong_among_many_answers_is_named() -> None:
    result = run_in_process("Wrong", Scenario.Offline)
    twice, unknown = sorted(result.errors)
    assert twice == "Attempted to complete a sample twice: id 17"
    assert unknown.endswith("unknown sample: id 1000000007; this run has ids 0 to 1099")
    assert result.sample_count == 1100


def test_a_system_that_neither_answers_nor_stops_is_killed() -> None:
    before = time.monotonic()
    result = run_in_process("Stubborn", Scenario.Server, watchdog_s=0.2, stop_timeout_s=0.2)
    assert any("no answer for 0.2 s" in error for error in result.errors)
    assert any("took more than 0.2 s to stop" in error for error in result.errors)
    assert time.monotonic() - before < 30


def test_a_start_has_a_time_limit() -> None:
    system = ProcessSystem("child_systems:SleepsInStart", name="slow", start_timeout_s=0.1)
    with pytest.raises(WorkerError, match=r"slow did not start within 0\.1 s"):
        system.start(Recorder(1, FakeClock(), Errors()))


def test_a_run_on_another_clock_is_noticed() -> None:
    class Behind(RealClock):
        now_ns = staticmethod(lambda: time.perf_counter_ns() - 3_600_000_000_000)

    result = run_in_process("FakeSystem", clock=Behind())
    assert any("read the run's clock, the real one" in error for error in result.errors)


def test_a_child_whose_clock_stands_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RealClock, "now_ns", staticmethod(lambda: time.perf_counter_ns() - 10**15))
    with pytest.raises(WorkerError, match="the clock in the process of fake says"):
        ProcessSystem(FakeSystem, name="fake").start(Heard())


def test_a_factory_that_cannot_travel_is_refused() -> None:
    with pytest.raises(InputError, match="top of a module"):
        ProcessSystem(lambda: FakeSystem(), name="anonymous")
    with pytest.raises(InputError, match="module:function"):
        ProcessSystem("child_systems", name="half a name")


def test_any_responder_hears_single_answers_in_columns() -> None:
    """1,000 answers of one sample each: those that lie ready together come together, each with its time."""
    heard, system = Heard(), ProcessSystem(FakeSystem, name="fake")
    system.start(heard)
    before = RealClock.now_ns()
    for k in range(1000):
        system.issue(k, k)
    wait_for(lambda: sum(np.size(answer[0]) for answer in heard.answers) == 1000)
    system.stop()
    assert [i for ids, *_ in heard.answers for i in np.atleast_1d(ids).tolist()] == list(range(1000))
    times = [at for *_, ats in heard.answers for at in np.atleast_1d(ats).tolist()]
    assert len(times) == 1000
    assert before < times[0] < times[-1] < RealClock.now_ns()
    assert times == sorted(times)
    assert heard.failures == []


def test_times_that_the_system_read_itself_arrive() -> None:
    heard, system = Heard(np.ones(10, bool)), ProcessSystem("child_systems:Dated", name="dated")
    system.start(heard)
    system.issue(7, 0)
    system.issue([1, 2, 3], [0, 0, 0])
    wait_for(lambda: len(heard.answers) == 4)
    system.stop()
    assert heard.firsts == [([7], b"f", [0, 1], 1007), ([1, 2, 3], b"fff", [0, 1, 2, 3], [1001, 1002, 1003])]
    assert heard.answers == [
        ([7], b"d", [0, 1], [2], 2007),
        ([8], None, None, None, 5),
        ([1, 2, 3], b"ddd", [0, 1, 2, 3], [2, 2, 2], [2001, 2002, 2003]),
        ([9, 8], None, None, None, 5),
    ]
    ((message, _),) = heard.failures
    assert message.endswith("ValueError: 2 answers came with 3 times: pass one, or one for each")


def test_bytes_travel_only_where_an_answer_is_kept() -> None:
    heard, system = Heard(np.arange(10) % 2 == 0), ProcessSystem(FakeSystem, name="fake")
    system.start(heard)
    for k in (4, 5):
        system.issue(k, k)
    wait_for(lambda: len(heard.answers) == 2)
    system.stop()
    assert [answer[1] for answer in heard.answers] == [b"4", None]


SCRIPT = """
from loadgen.harness.workers import ProcessSystem
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings
from loadgen.testing import FakeLibrary

if __name__ == "__main__":
    asked = TestSettings(scenario=Scenario.Server, server_target_qps=500.0, min_duration_ms=30_000)
    print(run(ProcessSystem("child_systems:Announced", name="fake"), FakeLibrary(), asked).errors)
"""


def _gone(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/cmdline").read_bytes()  # empty: dead, though nobody asked for its exit code
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=lambda sent: sent.name)
def test_no_child_outlives_its_parent(sent: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C goes to both processes, as in a terminal; SIGKILL to the parent alone."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, script], env=environment, start_new_session=True, **pipes) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.1)  # the test runs
        (os.killpg if sent is signal.SIGINT else os.kill)(parent.pid, sent)
        out, err = parent.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while not _gone(child):
        assert time.monotonic() < deadline, "the child lives"
        time.sleep(0.02)
    if sent is signal.SIGINT:
        assert out.strip().startswith("('Interrupted by Ctrl-C")
        assert err == ""


def test_the_readmes_example_runs(tmp_path: Path) -> None:
    section = (HERE.parents[2] / "README.md").read_text().split("## A system in its own process")[1].split("\n## ")[0]
    script = tmp_path / "example.py"
    script.write_text(re.findall(r"```py\n(.*?)```", section, re.S)[0])
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True\n", done.stdout + done.stderr
