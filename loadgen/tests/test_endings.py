"""How a test of the official API ends: what is raised comes out, what was measured stays, whoever ends the process."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loadgen.compat as lg
from loadgen import memory
from loadgen.compat.addresses import bytes_at, read
from loadgen.compat.samples import SAMPLE_BYTES
from loadgen.logs import metrics_of, read_accuracy, read_detail, read_summary, read_trace
from loadgen.settings import SettingsError

ANSWERS = np.arange(100, dtype=np.int64)


def complete(samples: list[Any]) -> None:
    base = int(ANSWERS.ctypes.data)
    lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, base + 8 * s.index, 8) for s in samples])


def nothing(*_: Any) -> None: ...


def start(
    folder: Path,
    issue: Callable[[list[Any]], Any] = complete,
    flush: Callable[[], Any] = nothing,
    load: Callable[[list[int]], Any] = nothing,
    unload: Callable[[list[int]], Any] = nothing,
    **changes: Any,
) -> dict[str, Any]:
    """Runs a Server test as an app does, and reads its detail log."""
    settings = lg.TestSettings()
    settings.scenario, settings.min_duration_ms, settings.min_query_count = lg.TestScenario.Server, 0, 100
    settings.server_target_qps = settings.offline_expected_qps = 20_000
    for name, value in changes.items():
        setattr(settings, name, value)
    log = lg.LogSettings()
    log.log_output.outdir = str(folder)
    system, library = lg.ConstructSUT(issue, flush), lg.ConstructQSL(100, 100, load, unload)
    lg.StartTestWithLogSettings(system, library, settings, log, str(folder / "none"))
    return metrics_of(read_detail(folder / "mlperf_log_detail.txt"))


class Broken(Exception):
    """A submission's own."""


def broken(*_: Any) -> None:
    raise Broken("the device is gone")


@pytest.mark.parametrize("callback", ["issue", "flush", "load", "unload"])
def test_what_a_callback_raises_is_raised_under_its_own_name(callback: str, tmp_path: Path) -> None:
    with pytest.raises(Broken, match="the device is gone") as caught:
        start(tmp_path, **{callback: broken})
    assert caught.traceback[-1].name == "broken"
    result = json.loads((tmp_path / "result.json").read_text())
    assert not result["valid"]
    assert f"{callback}() raised Broken: the device is gone" in result["errors"][0]


def test_what_the_handler_of_a_signal_raises_is_raised_under_its_own_name(tmp_path: Path) -> None:
    queries: list[int] = []

    def issue(samples: list[Any]) -> None:
        queries.append(1)
        if len(queries) == 50:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
        complete(samples)

    before = signal.signal(signal.SIGALRM, broken)
    try:
        with pytest.raises(Broken):
            start(tmp_path, issue, min_query_count=50_000, server_target_qps=1000)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert 50 <= metrics_of(read_detail(tmp_path / "mlperf_log_detail.txt"))["result_query_count"] < 50_000


def test_a_test_beside_another_is_refused(tmp_path: Path) -> None:
    refused: list[BaseException] = []

    def other() -> None:
        try:
            start(tmp_path / "other")
        except RuntimeError as error:
            refused.append(error)

    def issue(samples: list[Any]) -> None:
        if not refused:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        complete(samples)

    assert start(tmp_path, issue)["result_query_count"] == 100
    assert "one runs at a time in a process" in str(refused[0])
    assert not (tmp_path / "other").exists()


def test_a_test_within_another_is_refused(tmp_path: Path) -> None:
    def issue(samples: list[Any]) -> None:
        complete(samples)
        start(tmp_path / "inner")

    with pytest.raises(RuntimeError, match="a test is running"):
        start(tmp_path, issue)
    assert start(tmp_path)["result_query_count"] == 100, "and the next test runs"


def test_what_a_user_froze_stays_frozen(tmp_path: Path) -> None:
    gc.freeze()
    try:
        frozen, thresholds = gc.get_freeze_count(), gc.get_threshold()
        start(tmp_path, scenario=lg.TestScenario.Offline, min_query_count=150_000)
        assert 0 < gc.get_freeze_count() <= frozen, "some died since"
        assert gc.get_threshold() == thresholds
    finally:
        gc.unfreeze()
    start(tmp_path)
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("many", [False, True])
def test_a_size_without_an_address_is_an_error_that_names_the_sample(many: bool, tmp_path: Path) -> None:
    def issue(samples: list[Any]) -> None:
        answers = [lg.QuerySampleResponse(s.id, ANSWERS.ctypes.data, 8) for s in samples]
        answers[-1].data = 0
        lg.QuerySamplesComplete(answers)

    changes = {"scenario": lg.TestScenario.Offline} if many else {"min_query_count": 1}
    start(tmp_path, issue, mode=lg.TestMode.PerformanceOnly, accuracy_log_probability=1.0, **changes)
    result = json.loads((tmp_path / "result.json").read_text())
    assert not result["valid"]
    assert f"8 bytes came with the address 0, so it is logged as empty: id {99 if many else 0};" in result["errors"][0]
    entries = list(read_accuracy(tmp_path / "mlperf_log_accuracy.json"))
    assert [len(entry.data) for entry in entries] == [8] * (len(entries) - 1) + [0]


def test_bytes_are_read_wherever_they_lie() -> None:
    rng = np.random.default_rng(3)
    parts = [rng.integers(0, 256, 300, np.uint8) for _ in range(50)]
    for sizes in (np.full(50, 8), np.full(50, 300), rng.integers(0, 300, 50), np.zeros(50, np.int64)):
        data, offsets = read(np.array([part.ctypes.data for part in parts]), sizes)
        assert data == b"".join(part[:size].tobytes() for part, size in zip(parts, sizes, strict=True))
        assert np.diff(offsets).tolist() == sizes.tolist()
    whole = np.arange(400, dtype=np.uint8)
    data, _ = read(whole.ctypes.data + 8 * np.arange(50), np.full(50, 8))
    assert data == whole.tobytes()


def test_answers_of_more_than_two_gib_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadgen.compat.addresses._C_INT_MAX", 10)  # the limit of what reads shorter ones
    assert bytes_at(ANSWERS.ctypes.data, 16) == ANSWERS[:2].tobytes()


def test_every_error_is_counted(tmp_path: Path) -> None:
    def twice(samples: list[Any]) -> None:
        complete(samples)
        complete(samples)

    start(tmp_path, twice, min_query_count=500)
    assert "\n500 ERRORS encountered" in (tmp_path / "mlperf_log_summary.txt").read_text()
    reasons = json.loads((tmp_path / "result.json").read_text())["reasons"]
    assert "and 400 more errors, of which no words are kept" in reasons


def test_a_summary_that_says_valid_beside_a_result_that_does_not_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def twice(samples: list[Any]) -> None:
        complete(samples)
        complete(samples[:1])

    start(tmp_path, twice, scenario=lg.TestScenario.Offline)
    assert read_summary(tmp_path / "mlperf_log_summary.txt")["Result is"] == "VALID"
    note = (tmp_path / "mlperf_log_summary_note.txt").read_text()
    assert "The test is INVALID all the same" in note
    assert "Attempted to complete a sample twice: id 0" in note
    assert note in capsys.readouterr().err
    start(tmp_path, scenario=lg.TestScenario.Offline)
    assert not (tmp_path / "mlperf_log_summary_note.txt").exists(), "the note of an earlier test is taken away"


def test_a_network_system_is_asked_for_its_name_twice_and_the_first_time_is_measured(tmp_path: Path) -> None:
    calls: list[str] = []

    def name() -> str:
        calls.append("name")
        time.sleep(0.01)
        return "far away"

    def issue(samples: list[Any]) -> None:
        calls.append("issue")
        complete(samples)

    settings = lg.TestSettings()
    settings.scenario, settings.min_duration_ms, settings.min_query_count = lg.TestScenario.Offline, 0, 10
    log = lg.LogSettings()
    log.log_output.outdir = str(tmp_path)
    library = lg.ConstructQSL(10, 10, lambda _: calls.append("load"), lambda _: calls.append("unload"))
    system = lg.ConstructQDL(issue, lambda: calls.append("flush"), name)
    lg.StartTestWithLogSettings(system, library, settings, log)
    assert calls == ["name", "load", "issue", "flush", "name", "unload"]
    assert 10**7 <= metrics_of(read_detail(tmp_path / "mlperf_log_detail.txt"))["get_sut_name_duration_ns"] < 10**9


def test_a_sample_that_never_comes_ends_a_test_that_has_a_watchdog(tmp_path: Path) -> None:
    found = start(tmp_path, nothing, scenario=lg.TestScenario.Offline, watchdog_s=0.6)
    assert found["error_runtime"].startswith("no answer for 0.6 s; without one are ids [0, 1,")
    with pytest.raises(TypeError, match="watchdog_s"):
        lg.TestSettings().watchdog_s = -1


def test_memory_is_counted_as_a_large_query_takes_it(tmp_path: Path) -> None:
    count = 150_000

    def issue(samples: list[Any]) -> None:
        lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, 0, 0) for s in samples])

    tracemalloc.start()
    try:
        start(tmp_path, issue, scenario=lg.TestScenario.Offline, min_query_count=count)
        taken = tracemalloc.get_traced_memory()[1] / count
    finally:
        tracemalloc.stop()
    counted = memory._SAMPLE_BYTES + SAMPLE_BYTES
    assert 0.7 * counted < taken < counted, f"{taken:.0f} bytes a sample"


def test_what_does_not_fit_is_refused_before_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 150 * 1_000_000)
    with pytest.raises(SettingsError, match=r"need about 0\.2 GB"):
        start(tmp_path, scenario=lg.TestScenario.Offline, min_query_count=1_000_000)
    start(tmp_path, scenario=lg.TestScenario.Server, min_query_count=1000)


# Processes that end.

_APP = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
import loadgen.compat as lg

how, folder = sys.argv[1:]
answers = np.arange(100, dtype=np.int64)
count = 0
if how == "handler that exits":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))

def issue(samples):
    global count
    count += 1
    base = int(answers.ctypes.data)
    lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, base + 8 * s.index, 8) for s in samples])
    if count == 800:
        time.sleep(0.5)  # time to write
        print("running", flush=True)
    if count == 877 and how == "sys.exit":
        sys.exit(7)

settings = lg.TestSettings()
settings.scenario, settings.min_duration_ms = lg.TestScenario.Server, 60_000
settings.server_target_qps, settings.accuracy_log_probability = 2000, 0.5
log = lg.LogSettings()
log.log_output.outdir = folder
system = lg.ConstructSUT(issue, lambda: None)
library = lg.ConstructQSL(100, 100, lambda indices: None, lambda indices: None)
lg.StartTestWithLogSettings(system, library, settings, log)
"""


@pytest.mark.parametrize(
    ("how", "sent", "code"),
    [
        ("", signal.SIGTERM, 143),
        ("handler that exits", signal.SIGTERM, 7),
        ("sys.exit", None, 7),
        ("", signal.SIGKILL, -9),
    ],
    ids=["SIGTERM", "SIGTERM with a handler", "sys.exit in issue", "SIGKILL"],
)
def test_a_process_that_ends_leaves_what_it_measured(
    how: str, sent: signal.Signals | None, code: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _APP, how, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            if sent is not None:
                process.send_signal(sent)
            assert process.wait(60) == code
        finally:
            process.kill()
    detail = metrics_of(read_detail(tmp_path / "mlperf_log_detail.txt"))
    assert detail["generated_query_count"] > 100_000
    result = json.loads((tmp_path / "result.json").read_text())
    assert not result["valid"]
    if sent is not signal.SIGKILL:
        assert result["query_count"] >= 800
        assert result["interrupted"]
        assert "result_query_count" in detail
        assert len(list(read_accuracy(tmp_path / "mlperf_log_accuracy.json"))) > 300
        spans = [e for e in read_trace(tmp_path / "mlperf_log_trace.json") if e["name"] == "Sample" and e["ph"] == "b"]
        assert len(spans) == result["sample_count"]
    else:
        assert "the test has not ended" in result["reasons"][0]
        text = (tmp_path / "mlperf_log_accuracy.json").read_text()
        assert len(json.loads(text + "]")) > 300, "whole lines, only the end of the list is missing"
        assert (tmp_path / "mlperf_log_trace.json").read_text().count('"name":"Sample","cat":"default","ph":"b"') >= 799
