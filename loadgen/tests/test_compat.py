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
from loadgen.compat import threads
from loadgen.compat.samples import refilled
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
    def issue(samples: list[Any]) -> None:
        threading.Timer(0.1, lg.AbortTest).start()

    found = start(lg.ConstructSUT(issue, lambda: None), asked("Offline"))
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
        lender.join(60)
    assert not any(lender.is_alive() for lender in lenders)
    assert set(names) == {"lender 0", "lender 1", "lender 2"}
    assert found["result_query_count"] == len(names) == found["generated_query_count"]


def test_missing_threads_are_counted(start: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_PATIENCE_S", 0.05)
    with pytest.raises(RuntimeError, match=r"server_num_issue_query_threads is 2, .* called on 0"):
        start(lg.ConstructSUT(answer, lambda: None), asked("Server", server_num_issue_query_threads=2))


def test_a_bad_audit_config_is_an_error_of_the_test(start: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "bad.config").write_text("*.*.min_duration = soon\n")
    settings = asked("Offline")
    found = start(lg.ConstructSUT(answer, lambda: None), settings, str(tmp_path / "bad.config"))
    assert found["error_invalid_config"] == "value needs to be integer or double, line=1"
    assert not json.loads((tmp_path / "result.json").read_text())["valid"]
    assert found["requested_min_duration_ms"] == settings.min_duration_ms


def held(keep: Callable[[list[Any]], list[Any]]) -> tuple[list[Any], Callable[[list[Any]], None]]:
    """A system that holds on to some samples of each query, and what it holds: (sample, its id, its index)."""
    kept: list[Any] = []

    def issue(samples: list[Any]) -> None:
        kept.extend((sample, sample.id, sample.index) for sample in keep(samples))
        answer(samples)

    return kept, issue


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server", "Offline"])
@pytest.mark.parametrize("part", [slice(None), slice(3, 4), slice(0, 0)], ids=["all", "the fourth", "none"])
def test_samples_that_a_system_holds_stay_as_they_were(
    start: Callable[..., dict[str, Any]], scenario: str, part: slice
) -> None:
    kept, issue = held(lambda samples: samples[part])
    found = start(lg.ConstructSUT(issue, lambda: None), asked(scenario))
    assert "error_runtime" not in found
    assert all((sample.id, sample.index) == (one, index) for sample, one, index in kept)
    assert len({id(sample) for sample, _, _ in kept}) == len({one for _, one, _ in kept}) == len(kept)


def test_a_system_may_change_the_samples_that_it_was_given(start: Callable[..., dict[str, Any]]) -> None:
    seen: list[int] = []

    def issue(samples: list[Any]) -> None:
        seen.extend(sample.id for sample in samples)
        answer(samples)
        for sample in samples:
            sample.id = sample.index = -1
        samples.reverse()
        del samples[0], samples[-1].index

    found = start(lg.ConstructSUT(issue, lambda: None), asked("MultiStream"))
    assert "error_runtime" not in found
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_samples_are_filled_again_only_if_nobody_holds_one() -> None:
    spare: list[lg.QuerySample] = []
    first = refilled(spare, range(0, 3), [7, 8, 9], 1)
    objects = {id(sample) for sample in first}
    assert [(sample.id, sample.index) for sample in first] == [(1, 7), (2, 8), (3, 9)]
    first.clear()
    second = refilled(spare, range(3, 6), [4, 5, 6], 1)
    assert [(sample.id, sample.index) for sample in second] == [(4, 4), (5, 5), (6, 6)]
    assert {id(sample) for sample in second} == objects, "nobody held them"
    held = second.pop()
    del second
    third = refilled(spare, range(6, 9), [1, 2, 3], 1)
    assert (held.id, held.index) == (6, 6)
    assert not {id(sample) for sample in third} & objects
    del third
    assert [sample.id for sample in refilled(spare, range(9, 11), [1, 2], 1)] == [10, 11], "a shorter query"


def in_pieces(samples: list[Any]) -> None:
    for low in range(0, len(samples), 3):
        answer(samples[low : low + 3])


def in_threads(samples: list[Any]) -> None:
    for sample in samples:
        threading.Thread(target=answer, args=([sample],)).start()


def in_vectors(samples: list[Any]) -> None:
    lg.QuerySamplesComplete(lg.VectorQuerySampleResponse(lg.QuerySampleResponse(id=s.id) for s in samples))


@pytest.mark.parametrize("size", [1, 8, 20])
@pytest.mark.parametrize(
    "issue",
    [answer, lambda samples: answer(samples[::-1]), in_pieces, in_threads, in_vectors],
    ids=["whole", "backwards", "in pieces", "in threads", "in vectors"],
)
def test_a_query_may_be_answered_in_any_way(
    start: Callable[..., dict[str, Any]], issue: Callable[[list[Any]], None], size: int
) -> None:
    sizes: list[int] = []

    def watched(samples: list[Any]) -> None:
        sizes.append(len(samples))
        issue(samples)

    found = start(lg.ConstructSUT(watched, lambda: None), asked("MultiStream", multi_stream_samples_per_query=size))
    assert "error_runtime" not in found
    assert sizes == [size] * found["result_query_count"]


def again(samples: list[Any], one: int) -> None:
    answer([*samples, lg.QuerySample(one, 0)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda samples: answer([*samples[:5], samples[3], *samples[5:]]), "a sample twice: id 11"),
        (lambda samples: [answer(samples), answer(samples)], "a sample twice: id 8"),
        (lambda samples: again(samples, samples[0].id - 3), "a sample twice: id 5"),
        (lambda samples: again(samples, 10**12), "an unknown sample: id 1000000000000"),
        (lambda samples: again(samples, 0), "an unknown sample: id 0"),
        (lambda samples: again(samples, -7), "an unknown sample: id -7"),
        (lambda samples: again(samples, samples[-1].id + 3), "before its query was issued: id 18"),
    ],
    ids=["in one call", "whole", "of an earlier query", "unknown", "zero", "negative", "of a later query"],
)
def test_a_wrong_answer_in_a_query_is_an_error_that_names_it(
    start: Callable[..., dict[str, Any]], tmp_path: Path, wrong: Callable[[list[Any]], Any], message: str
) -> None:
    queries: list[int] = []

    def issue(samples: list[Any]) -> None:
        queries.append(samples[0].id)
        (wrong if len(queries) == 2 else answer)(samples)

    start(lg.ConstructSUT(issue, lambda: None), asked("MultiStream"))
    result = json.loads((tmp_path / "result.json").read_text())
    assert not result["valid"]
    assert [error for error in result["errors"] if message in error]


@pytest.mark.parametrize("double", [False, True])
def test_a_query_with_a_sample_that_is_never_answered_is_the_last(
    start: Callable[..., dict[str, Any]], tmp_path: Path, double: bool
) -> None:
    firsts: list[int] = []

    def issue(samples: list[Any]) -> None:
        firsts.append(samples[0].id)
        if len(firsts) == 3:
            threading.Timer(0.1, lg.AbortTest).start()
            samples[2:3] = samples[1:2] * double
        answer(samples)

    start(lg.ConstructSUT(issue, lambda: None), asked("MultiStream"))
    assert firsts == [firsts[0], firsts[0] + 8, firsts[0] + 16]
    assert "count: 1, first id: 18" in (tmp_path / "mlperf_log_detail.txt").read_text()


def test_samples_and_responses_are_objects_like_the_official_ones() -> None:
    class Named(lg.QuerySampleResponse):
        """Apps may add to them."""

    sample, response = lg.QuerySample(index=2, id=1), Named(id=3, n_tokens=6, size=5, data=4)
    sample.index += 1
    response.size += 1
    assert (sample.id, sample.index) == (1, 3)
    assert (response.id, response.data, response.size, response.n_tokens) == (3, 4, 6, 6)
    assert len({sample, lg.QuerySample(1, 3), lg.QuerySample()}) == 3, "each is itself only"
    assert lg.VectorQuerySample([sample])[0] is sample
    assert lg.QuerySampleResponse(7, 8, 9).n_tokens == 0
