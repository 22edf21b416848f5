"""`mlperf_log_trace.json`: one span a sample, in the official event format, for Chrome's tracing viewers.

The official file double-quotes some strings and is not JSON; this one is. Times are microseconds with
three decimals from the start of the log.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from loadgen.logs.files import LogError, opened
from loadgen.settings import Scenario
from loadgen.state import Part, RunState

_QUOTED_TWICE = re.compile(r'":""([^"]*)""')  # in the official file
_CHUNK = 65536  # samples turned into text at a time


def write_trace(file: TextIO, state: RunState, enabled: bool) -> None:
    """A span for each answered sample, and for its first token; Server adds the latency counters."""
    file.write('{"traceEvents":[\n')
    if enabled:
        for part in state.parts:
            if part.queries:
                file.writelines(_events(state, part))
    epoch_us = time.time_ns() // 1000
    file.write('{"name":"LastTrace"}\n],\n"displayTimeUnit":"ns",\n"otherData":{\n')
    file.write(f'"ts":{epoch_us},\n"version":"MLPerf LoadGen v1.0"\n}}\n}}\n')


def _events(state: RunState, part: Part) -> Iterator[str]:
    size, total, zero = part.series.samples_per_query, part.stop_id - part.first_id, state.job.detail.start_ns
    scheduled, issued = np.frombuffer(part.scheduled, np.int64), np.frombuffer(part.issued, np.int64)
    server = state.settings.scenario is Scenario.Server
    for low in range(0, total, _CHUNK):
        samples = np.arange(low, min(low + _CHUNK, total))
        queries = samples // size
        ids = samples + part.first_id
        due = scheduled[queries]
        columns = [
            ids,
            queries,
            part.series.indices[samples],
            due - zero,
            issued[queries] - due,
            state.recorder.done_view[ids] - due,
        ]
        tokens = state.recorder.first[ids] - due if len(state.recorder.first) else np.zeros(len(ids), np.int64)
        for row in zip(*(column.tolist() for column in [*columns, tokens]), strict=True):
            yield from _sample(*row, server=server)


def _sample(
    seq: int, query: int, index: int, due: int, issued: int, done: int, token: int, *, server: bool
) -> Iterator[str]:
    if token > 0:
        yield from _span("Token", seq, query, index, due, issued, token)
    if done > 0:  # else never answered
        yield from _span("Sample", seq, query, index, due, issued, done)
        if server:
            yield (
                f'{{"name":"Latency","ph": "C","pid":{os.getpid()},"ts":{_us(due)},'
                f'"args":{{ "issue_delay":{issued},"issue_to_done":{done - issued}}}}},\n'
            )


def _span(name: str, seq: int, query: int, index: int, due: int, issued: int, done: int) -> Iterator[str]:
    yield (
        f'{{"name":"{name}","cat":"default","ph":"b","pid":{os.getpid()},"id":{seq},"ts":{_us(due)},'
        f'"args":{{"sample_seq":{seq},"query_seq":{query},"sample_idx":{index},'
        f'"issue_start_ns":{issued},"complete_ns":{done}}}}},\n'
    )
    yield f'{{"name":"{name}","cat":"default","ph":"e", "pid":{os.getpid()},"id":{seq},"ts":{_us(due + done)}}},\n'


def _us(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"


def read_trace(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a trace, ours or the official LoadGen's, one at a time.

    Raises LogError for a file that is cut off or no trace. An empty file has no events.
    """
    closed, line_no = True, 0
    with opened(path) as lines:
        for line_no, line in enumerate(lines, 1):
            text = line.strip().removesuffix(",")
            if line_no == 1:
                if text != '{"traceEvents":[':
                    raise LogError(f"{path}:1: not the beginning of a trace")
                closed = False
            elif text == '{"name":"LastTrace"}':
                closed = True
                break
            else:
                try:
                    yield json.loads(_QUOTED_TWICE.sub(r'":"\1"', text))
                except ValueError as error:
                    raise LogError(f"{path}:{line_no}: not a trace event ({error}); it may be cut off") from error
    if not closed:
        raise LogError(f"{path}:{line_no}: the trace is cut off after this line")
