"""What is written to a log is read back, whatever it holds; what is damaged is refused with its line."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.logs import (
    AccuracyEntry,
    DetailEntry,
    LogError,
    LogSettings,
    read_accuracy,
    read_detail,
    read_summary,
    read_trace,
    write_accuracy,
    write_detail,
)
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings
from loadgen.spool import LoggedAnswer
from loadgen.testing import FakeLibrary, FakeSystem

values = st.one_of(
    st.text(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.lists(st.integers(0, 2**40), max_size=5)
)
details = st.builds(
    DetailEntry,
    key=st.from_regex(r"[a-z_0-9.]{1,30}", fullmatch=True),
    value=values,
    time_ns=st.integers(0, 10**15),
    is_error=st.booleans(),
    is_warning=st.booleans(),
)
answers = st.builds(
    LoggedAnswer,
    seq_id=st.integers(0, 9),
    data=st.binary(max_size=40),
    first_token=st.none() | st.binary(max_size=9),
    n_tokens=st.none() | st.integers(0, 2**40),
)


@given(st.lists(details, max_size=8))
def test_detail_entries_are_read_back(tmp_path: Path, entries: list[DetailEntry]) -> None:
    path = tmp_path / "detail.txt"
    with path.open("w", encoding="utf-8") as file:
        write_detail(file, entries)
    found = read_detail(path)
    assert [(e.key, e.value, e.is_error, e.is_warning) for e in found] == [
        (e.key, e.value, e.is_error, e.is_warning) for e in entries
    ]
    assert all(abs(a.time_ns - b.time_ns) <= b.time_ns * 1e-15 + 1 for a, b in zip(found, entries, strict=True))


@given(st.lists(answers, max_size=8))
def test_answers_are_read_back(tmp_path: Path, logged: list[LoggedAnswer]) -> None:
    path = tmp_path / "accuracy.json"
    indices = {seq: 1000 - seq for seq in range(10)}
    with path.open("w") as file:
        write_accuracy(file, logged, indices)
    json.loads(path.read_text())
    assert list(read_accuracy(path)) == [
        AccuracyEntry(a.seq_id, indices[a.seq_id], a.data, a.first_token, a.n_tokens) for a in logged
    ]


@given(st.lists(answers, max_size=8), st.sampled_from([None, 1, "\t"]), st.integers(1, 40))
def test_a_log_of_any_form_is_read_in_parts(tmp_path: Path, logged: list[LoggedAnswer], indent: Any, part: int) -> None:
    rows: list[dict[str, Any]] = [
        {"qsl_idx": a.seq_id, "data": a.data.hex(), "seq_id": 7, "more": [{}]} for a in logged
    ]
    path = tmp_path / "accuracy.json"
    path.write_text(json.dumps(rows, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loadgen.logs.accuracy._PART", part)
        assert list(read_accuracy(path)) == [AccuracyEntry(7, a.seq_id, a.data) for a in logged]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "json:1: not an accuracy log, which begins with '\\['"),
        ("{}", "json:1: not an accuracy log"),
        ('[\n{"seq_id": 1, "qsl_idx": 1, "data": ""}\n{}]', "json:3: neither ',' nor ']' follows an entry"),
        ('[{"seq_id": 1,\n "qsl_idx": 1, "data": ""},\n{"seq_id": 1}\n]', "json:3: .*no 'qsl_idx'"),
        ("[\n\n3]", "json:3: not an accuracy log entry"),
        ('[{"seq_id": 1, "qsl_idx": 1, "data": "0"}]', "json:1: not an accuracy log entry"),
    ],
)
def test_what_is_no_accuracy_log_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text(text)
    with pytest.raises(LogError, match=message):
        list(read_accuracy(tmp_path / "log.json"))


@given(st.lists(answers, min_size=1, max_size=5), st.data())
def test_a_cut_accuracy_log_is_refused(tmp_path: Path, logged: list[LoggedAnswer], data: st.DataObject) -> None:
    text = io.StringIO()
    write_accuracy(text, logged, list(range(10)))
    whole = text.getvalue().rstrip()
    path = tmp_path / "cut.json"
    path.write_text(whole[: data.draw(st.integers(1, len(whole) - 1))])
    with pytest.raises(LogError, match=r"cut\.json.*cut off"):
        list(read_accuracy(path))


def test_the_official_detail_log_breaks_lines_in_strings_and_knows_nan(tmp_path: Path) -> None:
    tail = '"metadata": {"is_error": false, "is_warning": true, "file": "results.cc"}}\n'
    path = tmp_path / "detail.txt"
    path.write_text(
        ':::MLLOG {"key": "result_invalid_reason", "value": "one\ntwo", "time_ms": 1.5, ' + tail +
        ':::MLLOG {"key": "result_rate", "value": -nan, "time_ms": 2.0, ' + tail
    )  # fmt: skip
    reason, rate = read_detail(path)
    assert reason == DetailEntry("result_invalid_reason", "one\ntwo", 1_500_000, False, True)
    assert rate.value != rate.value


def test_official_traces_quote_some_strings_twice(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(
        '{"traceEvents":[\n{"name":"LogDetail","args":{"key":""loadgen_version""}},\n'
        '{"name":"LastTrace"}\n],\n"displayTimeUnit":"ns"\n}\n'
    )
    assert list(read_trace(path)) == [{"name": "LogDetail", "args": {"key": "loadgen_version"}}]
    path.write_text('{"traceEvents":[\n{"name":"Sample"},\n')
    with pytest.raises(LogError, match=r"trace\.json:2: the trace is cut off"):
        list(read_trace(path))


def test_a_run_can_be_read_from_its_files(tmp_path: Path) -> None:
    asked = TestSettings(scenario=Scenario.Server, min_duration_ms=50, server_target_qps=2000.0)
    result = run(FakeSystem(), FakeLibrary(), asked, log=LogSettings(tmp_path, enable_trace=True))
    summary = read_summary(tmp_path / "mlperf_log_summary.txt")
    assert summary["Scenario"] == "Server"
    assert summary["target_qps"] == "2000"
    samples = [e for e in read_trace(tmp_path / "mlperf_log_trace.json") if e["name"] == "Sample" and e["ph"] == "b"]
    assert len(samples) == result.query_count
    (tmp_path / "mlperf_log_summary.txt").write_text("=====\n")
    with pytest.raises(LogError, match="no summary, or cut off"):
        read_summary(tmp_path / "mlperf_log_summary.txt")


def test_large_answers_pass_through_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadgen.spool._MEMORY_BYTES", 1 << 20)
    answer, count = bytes(range(256)) * 4096, 64  # 64 MiB in all, of 1 MiB each

    class Pictures(FakeSystem):
        def issue(self, ids: object, indices: object) -> None:
            self.respond.complete(ids, answer)  # type: ignore[arg-type]

    asked = TestSettings(min_duration_ms=0, min_query_count=count, accuracy_log_probability=1.0)
    tracemalloc.start()
    try:
        run(Pictures(), FakeLibrary(), asked, log=LogSettings(tmp_path))
        entries = read_accuracy(tmp_path / "mlperf_log_accuracy.json")
        assert sum(entry.data == answer for entry in entries) == count
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
