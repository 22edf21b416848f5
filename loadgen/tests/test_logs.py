"""What is written to a log is read back, whatever it holds; what is damaged is refused with its line."""

from __future__ import annotations

import io
import json
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.logs import (
    AccuracyEntry,
    AccuracyLog,
    DetailEntry,
    LogError,
    LogSettings,
    detail_text,
    read_accuracy,
    read_detail,
    read_summary,
    read_trace,
)
from loadgen.logs.text import Piece, text_of
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings
from loadgen.spool import Block
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


@dataclass(frozen=True)
class Logged:
    """What an accuracy log is made of: blocks of answers, some or all of one size, and what goes with each id."""

    blocks: tuple[tuple[tuple[int, bytes], ...], ...]
    n_tokens: tuple[int, ...] | None
    first_tokens: dict[int, bytes] | None
    indices: tuple[int, ...]

    def write(self, file: BinaryIO) -> None:
        n_tokens = None if self.n_tokens is None else np.array(self.n_tokens)
        log = AccuracyLog(file, np.array(self.indices), n_tokens, None if n_tokens is None else self.first_tokens)
        for block in self.blocks:
            lengths = [0, *np.cumsum([len(data) for _, data in block])]
            ids = np.array([one for one, _ in block])
            log.write([Block(ids, b"".join(data for _, data in block), np.array(lengths))])
        log.close()

    def entries(self) -> list[AccuracyEntry]:
        return [
            AccuracyEntry(
                one,
                self.indices[one],
                data,
                None if self.first_tokens is None or self.n_tokens is None else self.first_tokens.get(one, b""),
                None if self.n_tokens is None else self.n_tokens[one],
            )
            for block in self.blocks
            for one, data in block
        ]


def of_sizes(sizes: st.SearchStrategy[int]) -> Any:
    data = sizes.flatmap(lambda size: st.binary(min_size=size, max_size=size))
    return st.lists(st.tuples(st.integers(0, 9), data), min_size=1, max_size=4).map(tuple)


logs = st.builds(
    Logged,
    blocks=st.lists(
        of_sizes(st.integers(0, 40)) | st.integers(0, 200).flatmap(lambda size: of_sizes(st.just(size))), max_size=5
    ).map(tuple),
    n_tokens=st.none() | st.lists(st.integers(0, 2**40), min_size=10, max_size=10).map(tuple),
    first_tokens=st.none() | st.dictionaries(st.integers(0, 9), st.binary(max_size=9)),
    indices=st.lists(st.integers(0, 2**40), min_size=10, max_size=10).map(tuple),
)


@given(st.lists(details, max_size=8))
def test_detail_entries_are_read_back(tmp_path: Path, entries: list[DetailEntry]) -> None:
    path = tmp_path / "detail.txt"
    path.write_text(detail_text(entries), encoding="utf-8")
    found = read_detail(path)
    assert [(e.key, e.value, e.is_error, e.is_warning) for e in found] == [
        (e.key, e.value, e.is_error, e.is_warning) for e in entries
    ]
    assert all(abs(a.time_ns - b.time_ns) <= b.time_ns * 1e-15 + 1 for a, b in zip(found, entries, strict=True))


@given(logs)
def test_answers_are_read_back(tmp_path: Path, logged: Logged) -> None:
    path = tmp_path / "accuracy.json"
    with path.open("wb") as file:
        logged.write(file)
    json.loads(path.read_text())
    assert list(read_accuracy(path)) == logged.entries()


@given(logs, st.sampled_from([None, 1, "\t"]), st.integers(1, 40))
def test_a_log_of_any_form_is_read_in_parts(tmp_path: Path, logged: Logged, indent: Any, part: int) -> None:
    rows: list[dict[str, Any]] = [
        {"qsl_idx": e.seq_id, "data": e.data.hex(), "seq_id": 7, "more": [{}]} for e in logged.entries()
    ]
    path = tmp_path / "accuracy.json"
    path.write_text(json.dumps(rows, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loadgen.logs.accuracy._PART", part)
        assert list(read_accuracy(path)) == [AccuracyEntry(7, e.seq_id, e.data) for e in logged.entries()]


@pytest.mark.parametrize("size", [0, 1, 128, 129, (1 << 17) - 1, (1 << 17) + 1, 300_000])
def test_answers_of_any_size_are_in_upper_case_and_one_line(size: int) -> None:
    data = bytes(k % 251 for k in range(2 * size))
    file = io.BytesIO()
    log = AccuracyLog(file, np.array([7, 8, 12]))
    log.write([Block(np.array([2, 0]), data, np.array([0, size, 2 * size]))])
    log.close()
    lines = file.getvalue().decode().split("\n")
    assert lines == [
        "[",
        f'{{ "seq_id" : 2, "qsl_idx" : 12, "data" : "{data[:size].hex().upper()}" }},',
        f'{{ "seq_id" : 0, "qsl_idx" : 7, "data" : "{data[size:].hex().upper()}" }}',
        "]",
        "",
    ]


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=9), st.integers(1, 4), st.data())
def test_columns_become_lines(numbers: list[int], least: int, data: st.DataObject) -> None:
    shown = np.array(data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers))))
    column = np.array(numbers)
    pieces = [Piece(b"<"), Piece(column, least), Piece(b"|"), Piece(column // 3, lines=shown), Piece(b">")]
    lines = [
        f"<{'-' * (n < 0)}{abs(n):0{least}d}|{n // 3 if seen else ''}>" for n, seen in zip(numbers, shown, strict=True)
    ]
    assert text_of(len(numbers), pieces).decode() == "".join(lines)


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


@given(logs.filter(lambda log: log.blocks), st.data())
def test_a_cut_accuracy_log_is_refused(tmp_path: Path, logged: Logged, data: st.DataObject) -> None:
    file = io.BytesIO()
    logged.write(file)
    whole = file.getvalue().decode().rstrip()
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
    monkeypatch.setattr("loadgen.spool.MEMORY_BYTES", 1 << 20)
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
