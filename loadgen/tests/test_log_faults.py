"""Logs that cannot be written, or that Ctrl-C interrupts: noticed before the test if possible, never VALID after."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadgen.contracts import InputError
from loadgen.logs import LogSettings, Writer, metrics_of, read_accuracy, read_detail, read_trace
from loadgen.run import run
from loadgen.settings import Scenario
from loadgen.testing import FakeLibrary, FakeSystem
from loadgen.testing import run_on_fake_clock as on_fake_clock
from loadgen.testing import short_test as settings


def test_a_log_folder_that_cannot_be_made_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    system = FakeSystem()
    with pytest.raises(InputError, match=r"output folder .*file/logs .*: choose another"):
        run(system, FakeLibrary(), settings(Scenario.Offline), log=LogSettings(tmp_path / "file" / "logs"))
    assert system.calls == []


def test_a_disk_that_is_full_is_noticed_before_the_test(tmp_path: Path) -> None:
    (tmp_path / "mlperf_log_detail.txt").symlink_to("/dev/full")
    system = FakeSystem()
    with pytest.raises(InputError, match=r"detail\.txt: cannot be written: No space left on device: free space, or"):
        run(system, FakeLibrary(), settings(Scenario.Offline), log=LogSettings(tmp_path))
    assert system.calls == []


def test_a_folder_of_the_prefix_that_is_not_there_is_noticed_before_the_test(tmp_path: Path) -> None:
    system = FakeSystem()
    with pytest.raises(InputError, match=r"mine/mlperf_summary\.txt: cannot be written: No such file or directory"):
        run(system, FakeLibrary(), settings(Scenario.Offline), log=LogSettings(tmp_path, prefix="mine/mlperf_"))
    assert system.calls == []
    assert list(tmp_path.iterdir()) == []


_FILLS_UP = """
import resource, sys
from pathlib import Path
from loadgen.logs import LogSettings
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings
from loadgen.testing import FakeLibrary, FakeSystem

class Long(FakeSystem):
    def issue(self, ids, indices):
        self.respond.complete(ids, bytes(1000 * len(ids)), range(0, 1000 * len(ids) + 1, 1000))

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
asked = TestSettings(scenario=Scenario.Offline, min_duration_ms=0, min_query_count=500, accuracy_log_probability=1.0)
run(Long(), FakeLibrary(), asked, log=LogSettings(Path(sys.argv[1])))
"""


def test_a_disk_that_fills_up_leaves_no_valid_result(tmp_path: Path) -> None:
    """A limit on the size of a file stands for it: the accuracy log would have a megabyte."""
    command = [sys.executable, "-c", _FILLS_UP, str(tmp_path), "200000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "InputError" in done.stderr
    assert "mlperf_log_accuracy.json: cannot be written: File too large: free space" in done.stderr
    record = json.loads((tmp_path / "result.json").read_text())
    assert not record["valid"]
    assert "accuracy.json: cannot be written" in record["reasons"][0]
    assert record["metrics"]["result_samples_per_second"] > 0, "what was measured is kept"
    assert metrics_of(read_detail(tmp_path / "mlperf_log_detail.txt"))["result_query_count"] == 1


@pytest.mark.parametrize("step", ["finish", "conclude"])
def test_ctrl_c_while_logs_are_written_leaves_whole_logs(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = getattr(Writer, step), []

    def interrupted_once(*arguments: Any) -> None:
        original(*arguments)
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Writer, step, interrupted_once)
    asked = settings(Scenario.Offline, accuracy_log_probability=1.0)
    result, _, _ = on_fake_clock(asked, log=LogSettings(tmp_path, enable_trace=True))
    assert result.interrupted
    assert not result.errors, "it was measured to its end"
    keys = [entry.key for entry in read_detail(tmp_path / "mlperf_log_detail.txt")]
    assert keys.count("result_validity") == keys.count("loadgen_version") == 1
    assert len(list(read_accuracy(tmp_path / "mlperf_log_accuracy.json"))) == result.sample_count
    assert sum(event["name"] == "Sample" for event in read_trace(tmp_path / "mlperf_log_trace.json")) == 440
