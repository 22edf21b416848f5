"""Settings of the official API: taken as the official wheel takes them, converted or refused when they are set."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loadgen.compat as lg
from loadgen.compat import config
from loadgen.logs import metrics_of, read_detail

INTEGERS = ("min_query_count", "qsl_rng_seed", "server_target_latency_ns", "multi_stream_samples_per_query")
NUMBERS = ("server_target_qps", "single_stream_expected_latency_ns", "accuracy_log_probability")
SWITCHES = ("performance_issue_same", "use_token_latencies", "test05")


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize(
    ("value", "kept"),
    [(9, 9), (np.int64(9), 9), (np.uint8(9), 9), (np.bool_(True), 1), (True, 1), (2**64 - 1, 2**64 - 1), (0, 0)],
)
def test_whole_numbers_are_taken(name: str, value: Any, kept: int) -> None:
    settings = lg.TestSettings()
    setattr(settings, name, value)
    assert getattr(settings, name) == kept
    assert type(getattr(settings, name)) is int


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize(
    "value", [-1, np.int64(-1), 2**64, 1.0, np.float64(2), float("nan"), "5", None, [5], lg.TestScenario.Offline]
)
def test_what_is_no_count_is_refused_when_it_is_set(name: str, value: Any) -> None:
    settings = lg.TestSettings()
    before = getattr(settings, name)
    with pytest.raises(TypeError, match=rf"TestSettings\.{name} is a whole number.*, not "):
        setattr(settings, name, value)
    assert getattr(settings, name) == before


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.float32(3), np.float64(3)])
def test_numbers_are_taken(name: str, value: Any) -> None:
    settings = lg.TestSettings()
    setattr(settings, name, value)
    assert getattr(settings, name) == 3.0
    assert type(getattr(settings, name)) is float


@pytest.mark.parametrize("name", [*NUMBERS, *SWITCHES])
@pytest.mark.parametrize("value", ["3", None, [3]])
def test_what_is_no_number_is_refused_when_it_is_set(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"TestSettings\.{name} is "):
        setattr(lg.TestSettings(), name, value)


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", [True, 1, np.bool_(True), np.int64(4), 0.5])
def test_switches_are_taken(name: str, value: Any) -> None:
    settings = lg.TestSettings()
    setattr(settings, name, value)
    assert getattr(settings, name) is True


def test_scenarios_and_modes_are_no_numbers() -> None:
    settings = lg.TestSettings()
    for name, value in (("scenario", 3), ("scenario", lg.TestMode.AccuracyOnly), ("mode", "AccuracyOnly")):
        with pytest.raises(TypeError, match=rf"TestSettings\.{name} is a Test"):
            setattr(settings, name, value)
    scenario = lg.TestScenario.Offline
    assert (str(scenario), f"{scenario}", repr(scenario)) == ("TestScenario.Offline",) * 2 + (
        "<TestScenario.Offline: 3>",
    )
    assert (int(scenario), scenario.name, scenario.value, hash(scenario)) == (3, "Offline", 3, 3)
    assert scenario != 3
    assert scenario == lg.TestScenario(3) == pickle.loads(pickle.dumps(scenario))


def test_the_precision_of_a_search_may_be_negative() -> None:
    settings = lg.TestSettings()
    settings.server_find_peak_qps_decimals_of_precision = -1
    with pytest.raises(TypeError, match="from -2147483648 to 2147483647"):
        settings.server_find_peak_qps_decimals_of_precision = 2**31


def test_log_settings_are_checked_and_the_output_is_copied() -> None:
    log, output = lg.LogSettings(), lg.LogOutputSettings()
    output.outdir = "first"
    log.log_output = output
    output.outdir = "second"
    assert log.log_output.outdir == "first"
    log.log_output.outdir = "third"
    assert log.native().outdir == Path("third")
    log.enable_trace = np.bool_(False)
    assert log.native().enable_trace is False
    for thing, name in ((log, "enable_tracing"), (output, "out_dir"), (log, "log_outputs")):
        with pytest.raises(AttributeError):
            setattr(thing, name, "x")
    for thing, name, value in ((log, "log_output", "logs"), (output, "outdir", Path("x")), (log, "enable_trace", "no")):
        with pytest.raises(TypeError, match=name):
            setattr(thing, name, value)


def start(folder: Path, settings: lg.TestSettings, issue: Callable[[list[Any]], None]) -> dict[str, Any]:
    """What the detail log of a test says."""
    log = lg.LogSettings()
    log.log_output.outdir = str(folder)
    system = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(np.int64(20), np.int32(20), lambda indices: None, lambda indices: None)
    lg.StartTestWithLogSettings(
        sut=system,
        qsl=library,
        test_settings=settings,
        log_settings=log,
        audit_config_filename=str(folder / "audit.config"),
    )
    return metrics_of(read_detail(folder / "mlperf_log_detail.txt"))


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server", "Offline"])
def test_numpy_s_types_pass_through_a_whole_test(tmp_path: Path, scenario: str) -> None:
    answers = np.arange(20, dtype=np.int64)

    def issue(samples: list[Any]) -> None:
        lg.QuerySamplesComplete(
            [
                lg.QuerySampleResponse(np.int64(s.id), np.uint64(answers.ctypes.data + 8 * s.index), np.int32(8))
                for s in samples
            ]
        )

    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.min_query_count, settings.min_duration_ms = np.int64(70), np.uint32(0)
    settings.performance_issue_same, settings.accuracy_log_probability = np.bool_(False), np.float32(1)
    settings.server_target_qps = np.float64(20_000)
    found = start(tmp_path, settings, issue)
    assert found["requested_min_query_count"] == 70
    assert "error_runtime" not in found
    entries = json.loads((tmp_path / "mlperf_log_accuracy.json").read_text())
    assert entries
    assert all(int.from_bytes(bytes.fromhex(e["data"]), "little") == e["qsl_idx"] for e in entries)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lg.ConstructSUT(5, lambda: None),
        lambda: lg.ConstructSUT(lambda samples: None, None),
        lambda: lg.ConstructFastSUT("issue", lambda: None),
        lambda: lg.ConstructQDL(lambda samples: None, lambda: None, "name"),
        lambda: lg.ConstructQSL(5, 5, None, lambda indices: None),
        lambda: lg.ConstructQSL(5.0, 5, lambda indices: None, lambda indices: None),
    ],
)
def test_what_cannot_be_called_or_counted_is_refused(make: Callable[[], int]) -> None:
    with pytest.raises(TypeError):
        make()


def test_a_handle_that_is_none_is_named() -> None:
    library = lg.ConstructQSL(5, 5, lambda indices: None, lambda indices: None)
    with pytest.raises(ValueError, match="-4 is no system: pass what ConstructSUT returned"):
        lg.StartTest(-4, library, lg.TestSettings())


def complete(samples: list[Any]) -> None:
    lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, 0, 0) for s in samples])


def test_what_is_wrong_with_a_config_file_is_in_the_log_of_the_next_test(tmp_path: Path) -> None:
    (tmp_path / "user.conf").write_text("*.*.min_query_count = ten\n")
    settings = lg.TestSettings()
    assert settings.FromConfig(str(tmp_path / "user.conf"), "bert", "Offline") == -22
    assert settings.FromConfig(str(tmp_path / "none.conf"), "bert", "Offline") == -2
    settings.scenario, settings.min_duration_ms = lg.TestScenario.Offline, 0
    start(tmp_path, settings, complete)
    found = [e for e in read_detail(tmp_path / "mlperf_log_detail.txt") if e.key == "error_invalid_config"]
    assert [entry.value for entry in found] == [
        "value needs to be integer or double, line=1",
        f"can't open file {tmp_path / 'none.conf'}",
    ]
    assert all(entry.is_error for entry in found)
    assert "2 ERRORS encountered" in (tmp_path / "mlperf_log_summary.txt").read_text()
    assert not json.loads((tmp_path / "result.json").read_text())["valid"]
    assert "error_invalid_config" not in start(tmp_path, settings, complete), "said once"


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file has been read yet."""
    monkeypatch.setattr(config, "_user_files", [0])
    monkeypatch.setattr(config, "_errors", [])
