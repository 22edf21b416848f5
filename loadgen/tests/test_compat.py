"""The official Python API: a submission written for it runs unchanged."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loadgen.compat as lg
from loadgen import compat_threads
from loadgen.logs import metrics_of, read_accuracy, read_detail

BUFFERS = np.arange(100, dtype=np.int64) ** 2  # the answers, where a device would have left them


def address(index: int) -> int:
    return int(BUFFERS.ctypes.data) + 8 * index


def answer(samples: list[Any]) -> None:
    lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, address(s.index), 8) for s in samples])


def asked(scenario: str, mode: str = "PerformanceOnly", **changes: Any) -> lg.TestSettings:
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = getattr(lg.TestMode, mode)
    settings.min_duration_ms = 20
    settings.min_query_count = 64
    settings.single_stream_expected_latency_ns = 1000
    settings.multi_stream_expected_latency_ns = 1000
    settings.server_target_qps = 20_000
    settings.offline_expected_qps = 20_000
    for name, value in changes.items():
        setattr(settings, name, value)
    return settings


@pytest.fixture
def library() -> Iterator[int]:
    handle = lg.ConstructQSL(100, 100, lambda indices: None, lambda indices: None)
    yield handle
    lg.DestroyQSL(handle)


@pytest.fixture
def start(tmp_path: Path, library: int) -> Callable[..., dict[str, Any]]:
    """Runs a test as an app does, and reads its detail log."""

    def run(system: int, settings: lg.TestSettings, audit: str = "") -> dict[str, Any]:
        log = lg.LogSettings()
        log.log_output.outdir = str(tmp_path)
        try:
            lg.StartTestWithLogSettings(system, library, settings, log, audit or str(tmp_path / "audit.config"))
        finally:
            lg.DestroySUT(system)
        return metrics_of(read_detail(tmp_path / "mlperf_log_detail.txt"))

    return run


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server", "Offline"])
def test_every_scenario_runs(start: Callable[..., dict[str, Any]], scenario: str) -> None:
    found = start(lg.ConstructSUT(answer, lambda: None), asked(scenario))
    assert found["sut_name"] == "PySUT"
    assert found["result_min_queries_met"] is True
    assert "error_runtime" not in found


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server", "Offline"])
def test_a_fast_system_is_given_plain_lists(start: Callable[..., dict[str, Any]], scenario: str) -> None:
    def issue(ids: list[int], indices: list[int]) -> None:
        assert type(ids) is list
        assert type(indices) is list
        assert all(type(i) is int for i in [*ids, *indices])
        assert 0 not in ids
        lg.QuerySamplesComplete([lg.QuerySampleResponse(i, 0, 0) for i in ids])

    found = start(lg.ConstructFastSUT(issue, lambda: None), asked(scenario))
    assert found["sut_name"] == "PyFastSUT"
    assert "error_runtime" not in found


def test_a_network_system_is_asked_for_its_name(start: Callable[..., dict[str, Any]]) -> None:
    found = start(lg.ConstructQDL(answer, lambda: None, lambda: "far away"), asked("SingleStream"))
    assert found["sut_name"] == "far away"


@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_answers_are_read_from_their_addresses(
    start: Callable[..., dict[str, Any]], tmp_path: Path, scenario: str
) -> None:
    start(lg.ConstructSUT(answer, lambda: None), asked(scenario, "AccuracyOnly"))
    entries = list(read_accuracy(tmp_path / "mlperf_log_accuracy.json"))
    assert sorted(e.qsl_idx for e in entries) == list(range(100))
    assert all(int.from_bytes(e.data, "little") == e.qsl_idx**2 for e in entries)


def test_the_response_callback_comes_before_the_copy(start: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    def issue(samples: list[Any]) -> None:
        def fetch(response: Any) -> None:
            response.data, response.size = address(7), 8

        lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, 0, 0) for s in samples], fetch)

    start(lg.ConstructSUT(issue, lambda: None), asked("SingleStream", "AccuracyOnly"))
    assert {e.data for e in read_accuracy(tmp_path / "mlperf_log_accuracy.json")} == {(49).to_bytes(8, "little")}


def test_tokens_are_timed(start: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    def issue(samples: list[Any]) -> None:
        lg.FirstTokenComplete([lg.QuerySampleResponse(s.id, address(1), 8) for s in samples])
        lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, address(s.index), 8, 5) for s in samples])

    changes = {"use_token_latencies": True, "accuracy_log_probability": 1.0}
    found = start(lg.ConstructSUT(issue, lambda: None), asked("Server", **changes))
    assert found["result_first_token_mean_latency_ns"] > 0
    entry = next(read_accuracy(tmp_path / "mlperf_log_accuracy.json"))
    assert (entry.token_count, entry.token_data) == (5, (1).to_bytes(8, "little"))


def test_what_a_callback_raises_comes_out_of_start_test(start: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    def issue(samples: list[Any]) -> None:
        raise LookupError("no such model")

    with pytest.raises(LookupError, match="no such model"):
        start(lg.ConstructSUT(issue, lambda: None), asked("Server"))
    assert "INVALID" in (tmp_path / "mlperf_log_summary.txt").read_text()


def test_abort_ends_a_test_that_nobody_answers(start: Callable[..., dict[str, Any]]) -> None:
    timer = threading.Timer(0.1, lg.AbortTest)  # started by the query: before a test there is nothing to abort
    found = start(lg.ConstructSUT(lambda samples: timer.start(), lambda: None), asked("Offline"))
    assert "AbortTest" in found["error_runtime"]


def test_audit_config_overrides(start: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    audit = tmp_path / "audit.config"
    audit.write_text("*.*.min_query_count = 77\n*.*.test05 = 1\n*.*.test05_qsl_rng_seed = 5\n")
    settings = asked("SingleStream", "AccuracyOnly", test05_qsl_rng_seed=9)
    found = start(lg.ConstructSUT(answer, lambda: None), settings, str(audit))
    assert found["requested_min_query_count"] == 77
    assert found["requested_test_mode"] == "PerformanceOnly"
    assert found["requested_qsl_rng_seed"] == 9, "the seeds from before the audit file, as officially"
    assert "audit.config" in found["warning_generic_message"]


def test_settings_have_the_official_attributes_and_no_others(tmp_path: Path) -> None:
    settings = lg.TestSettings()
    assert settings.ttft_latency == 100_000_000
    with pytest.raises(AttributeError):
        settings.server_target_qsp = 5
    with pytest.raises(TypeError):
        settings.min_query_count = 1.5
    conf = tmp_path / "user.conf"
    conf.write_text("*.Server.target_qps = 123\nbert.Server.target_latency = 130\n")
    assert settings.FromConfig(str(conf), "bert", "Server") == 0
    assert (settings.server_target_qps, settings.server_target_latency_ns) == (123.0, 130_000_000)
    assert settings.FromConfig(str(tmp_path / "none"), "bert", "Server") == -2
    conf.write_text("*.Server.target_qps = fast\n")
    assert settings.FromConfig(str(conf), "bert", "Server") == -22


def test_registered_threads_issue_the_queries(start: Callable[..., dict[str, Any]]) -> None:
    names: list[str] = []

    def issue(samples: list[Any]) -> None:
        names.append(threading.current_thread().name)
        time.sleep(0.002)
        answer(samples)

    lenders = [threading.Thread(target=lg.RegisterIssueQueryThread, name=f"lender {k}", daemon=True) for k in range(3)]
    for lender in lenders:
        lender.start()
    settings = asked("Server", server_num_issue_query_threads=3, server_target_qps=1000, min_duration_ms=200)
    found = start(lg.ConstructSUT(issue, lambda: None), settings)
    for lender in lenders:
        lender.join(5)
    assert not any(lender.is_alive() for lender in lenders)
    assert set(names) == {"lender 0", "lender 1", "lender 2"}
    assert found["result_query_count"] == len(names) == found["generated_query_count"]


def test_missing_threads_are_counted(start: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat_threads, "_PATIENCE_S", 0.05)
    with pytest.raises(RuntimeError, match=r"server_num_issue_query_threads is 2, .* called on 0"):
        start(lg.ConstructSUT(answer, lambda: None), asked("Server", server_num_issue_query_threads=2))


def test_a_bad_audit_config_is_an_error_of_the_test(start: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "bad.config").write_text("*.*.min_duration = soon\n")
    settings = asked("Offline")
    found = start(lg.ConstructSUT(answer, lambda: None), settings, str(tmp_path / "bad.config"))
    assert found["error_invalid_config"] == "value needs to be integer or double, line=1"
    assert not json.loads((tmp_path / "result.json").read_text())["valid"]
    assert found["requested_min_duration_ms"] == settings.min_duration_ms
