"""A system in a real process of its own: every scenario, every kind of answer, and everything that can go wrong."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import InputError
from loadgen.harness.workers.ring import PeerGone, Reader, Ring, Writer
from loadgen.harness.workers.system import ProcessSystem, StartError
from loadgen.logs import LogSettings, read_accuracy
from loadgen.recorder import Errors, Recorder
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


@pytest.fixture(autouse=True)
def _tidy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Children can import `child_systems`; afterwards no process, mapping or descriptor is left."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)  # else each child imports pytest first
    yield
    assert not multiprocessing.active_children()
    gc.collect()
    assert "loadgen-ring" not in Path("/proc/self/maps").read_text()
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if "loadgen-ring" in _target(fd)]


def _target(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except FileNotFoundError:  # the one that listed the folder
        return ""


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
        ("RaisesInStart", ["StartError", "did not start", "ValueError: no such device", "child_systems.py"]),
        ("EndsInStart", ["exit code 3 before it was ready", "__main__"]),
        ("NoSuchClass", ["has no attribute 'NoSuchClass'"]),
        ("RaisesInIssue", ["RaisesInIssue.issue() raised ValueError: no room for sample", "child_systems.py"]),
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
    assert time.monotonic() - before < 5


def test_what_is_wrong_among_many_answers_is_named() -> None:
    result = run_in_process("Wrong", Scenario.Offline)
    text = "\n".join(result.errors)
    assert "complete a sample twice: id 17\n" in text
    assert "unknown sample: id 1000000007; this run has ids 0 to 1099" in text
    assert result.sample_count == 1100


def test_a_system_that_neither_answers_nor_stops_is_killed() -> None:
    before = time.monotonic()
    result = run_in_process("Stubborn", Scenario.Server, watchdog_s=0.2, stop_timeout_s=0.2)
    assert any("no answer for 0.2 s" in error for error in result.errors)
    assert any("took more than 0.2 s to stop" in error for error in result.errors)
    assert time.monotonic() - before < 5


def test_a_start_has_a_time_limit() -> None:
    system = ProcessSystem("child_systems:SleepsInStart", name="slow", start_timeout_s=0.1)
    with pytest.raises(StartError, match=r"slow did not start within 0\.1 s"):
        system.start(Recorder(1, FakeClock(), Errors()))


def test_a_clock_that_is_not_the_machines_is_refused() -> None:
    result = run_in_process("FakeSystem", clock=FakeClock())
    assert any("run with the real clock" in error for error in result.errors)


def test_a_factory_that_cannot_travel_is_refused() -> None:
    with pytest.raises(InputError, match="top of a module"):
        ProcessSystem(lambda: FakeSystem(), name="anonymous")
    with pytest.raises(InputError, match="module:function"):
        ProcessSystem("child_systems", name="half a name")


def test_only_a_recorder_takes_times() -> None:
    with pytest.raises(TypeError, match="only a Recorder"):
        ProcessSystem(partial(FakeSystem), name="fake").start(object())  # type: ignore[arg-type]


SCRIPT = """
from loadgen.harness.workers.system import ProcessSystem
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
        out, err = parent.communicate(timeout=5)
    deadline = time.monotonic() + 3
    while not _gone(child):
        assert time.monotonic() < deadline, "the child lives"
        time.sleep(0.02)
    if sent is signal.SIGINT:
        assert out.strip().startswith("('Interrupted by Ctrl-C")
        assert err == ""


def test_the_readmes_example_runs(tmp_path: Path) -> None:
    section = (HERE.parents[1] / "README.md").read_text().split("## A system in its own process")[1].split("\n## ")[0]
    script = tmp_path / "example.py"
    script.write_text(re.findall(r"```py\n(.*?)```", section, re.S)[0])
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "True\n", done.stdout + done.stderr


def test_a_ring_passes_any_amount_in_order() -> None:
    """Writer and reader here are one thread: what is written never exceeds the ring."""
    ring = Ring.make(1)
    writer, reader = Writer(ring), Reader(ring)
    rng, sent, found = np.random.default_rng(1), [], []
    for size in rng.integers(1, ring.size // 8 // 2, 200).tolist():
        words = rng.integers(0, 1 << 40, size)
        (writer.put if size % 2 else writer.write)(words.tobytes())
        sent.append(words)
        found.append(reader.take(size))
    writer.write(b"12345")
    assert reader.take(1).tobytes() == b"12345\0\0\0"
    assert (np.concatenate(sent) == np.concatenate(found)).all()
    assert writer.room() > ring.size // 2


def test_what_a_process_wrote_before_it_ended_is_read() -> None:
    ring = Ring.make(1)
    ended = multiprocessing.get_context("spawn").Process(target=int)
    ended.start()
    reader = Reader(ring, ended)
    Writer(ring).write(b"last....")
    ended.join()
    assert reader.take(1).tobytes() == b"last...."
    with pytest.raises(PeerGone):
        reader.take(1)
