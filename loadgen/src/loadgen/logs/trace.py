"""`mlperf_log_trace.json`: one span a sample, in the official event format, for Chrome's tracing viewers.

The official file double-quotes some strings and is not JSON; this one is. Times are microseconds with
three decimals from the start of the log.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64
from loadgen.logs.files import LogError, opened
from loadgen.logs.text import Piece, text_of
from loadgen.settings import Scenario
from loadgen.state import Part, RunState

_QUOTED_TWICE = re.compile(r'":""([^"]*)""')  # in the official file
_LINES = 1024  # samples turned into text at a time


class TraceLog:
    """`mlperf_log_trace.json` as it grows: a span for each answered sample, and for its first token.

    Server has counters of latency besides, and of its first tokens only these. Samples stand in order of their ids.
    """

    def __init__(self, file: BinaryIO, state: RunState) -> None:
        self._file, self._state = file, state
        self._part = self._sample = 0
        """Where the trace stands: a part, and a sample of it."""
        file.write(b'{"traceEvents":[\n')

    def write(self, *, to_the_end: bool = False) -> None:
        """Add samples, as far as they are answered without a gap; to_the_end: those after gaps, too."""
        parts = self._state.parts
        while self._part < len(parts):
            part, first = parts[self._part], parts[self._part].first_id
            stop = part.stop_id - first
            if not to_the_end:
                stop = self._state.recorder.first_missing(first + self._sample, first + stop) - first
            while self._sample < stop:
                high = min(self._sample + _LINES, stop)
                self._file.write(self._events(part, self._sample, high))
                self._sample = high
            if not to_the_end and self._sample < len(part.series.indices):
                return  # more may come
            self._part, self._sample = self._part + 1, 0

    def close(self) -> None:
        """The end of the trace. Does not close the file."""
        epoch_us = time.time_ns() // 1000
        self._file.write(
            b'{"name":"LastTrace"}\n],\n"displayTimeUnit":"ns",\n"otherData":{\n'
            b'"ts":%d,\n"version":"MLPerf LoadGen v1.0"\n}\n}\n' % epoch_us
        )

    def _events(self, part: Part, low: int, high: int) -> bytes:
        """Of these samples of a part."""
        size, recorder = part.series.samples_per_query, self._state.recorder
        samples = np.arange(low, high)
        first_query = low // size
        queries = samples // size - first_query
        last = first_query + int(queries[-1]) + 1
        issued = np.array(part.issued[first_query:last], np.int64)[queries]  # slices are copies: it goes on growing
        due = np.array(part.scheduled[first_query:last], np.int64)[queries]
        ids = samples + part.first_id
        answered = recorder.done_view[ids] != 0
        rows = _Rows(
            ids=ids,
            queries=queries + first_query + self._queries_before(part),
            indices=part.series.indices[samples].astype(np.int64),
            due=due - self._state.job.detail.start_ns,
            issued=issued - due,
            done=np.where(answered, recorder.done_view[ids] - due, 0),
        )
        pieces: list[Piece] = []
        server = self._state.settings.scenario is Scenario.Server
        if len(recorder.first):
            has_first = recorder.first[ids] != 0
            first = np.where(has_first, recorder.first[ids] - due, 0)
            pieces += (
                rows.counter(b"Token_Latency", first, has_first) if server else rows.span(b"Token", first, has_first)
            )
        if server:
            pieces += rows.counter(b"Latency", rows.done, answered)
        return text_of(len(ids), [*pieces, *rows.span(b"Sample", rows.done, answered)])

    def _queries_before(self, part: Part) -> int:
        """Queries of the sets before; their numbers go on."""
        return sum(one.queries for one in itertools.takewhile(lambda one: one is not part, self._state.parts))


@dataclass(frozen=True)
class _Rows:
    """Samples in columns. Times are ns: `due` from the start of the log, the others from there."""

    ids: I64
    queries: I64
    indices: I64
    due: I64
    issued: I64
    done: I64

    def span(self, name: bytes, end: I64, lines: npt.NDArray[np.bool_]) -> list[Piece]:
        """From when it was due to `end`."""
        head = b'{"name":"%b","cat":"default","ph":' % name
        pieces = [
            Piece(head + b'"b","pid":%d,"id":' % os.getpid()),
            Piece(self.ids),
            Piece(b',"ts":'),
            *_us(self.due),
            Piece(b',"args":{"sample_seq":'),
            Piece(self.ids),
            Piece(b',"query_seq":'),
            Piece(self.queries),
            Piece(b',"sample_idx":'),
            Piece(self.indices),
            Piece(b',"issue_start_ns":'),
            Piece(self.issued),
            Piece(b',"complete_ns":'),
            Piece(end),
            Piece(b"}},\n" + head + b'"e", "pid":%d,"id":' % os.getpid()),
            Piece(self.ids),
            Piece(b',"ts":'),
            *_us(self.due + end),
            Piece(b"},\n"),
        ]
        return [piece._replace(lines=lines) for piece in pieces]

    def counter(self, name: bytes, end: I64, lines: npt.NDArray[np.bool_]) -> list[Piece]:
        """How late it was issued, and how long after that it ended."""
        pieces = [
            Piece(b'{"name":"%b","ph": "C","pid":%d,"ts":' % (name, os.getpid())),
            *_us(self.due),
            Piece(b',"args":{ "issue_delay":'),
            Piece(self.issued),
            Piece(b',"issue_to_done":'),
            Piece(end - self.issued),
            Piece(b"}},\n"),
        ]
        return [piece._replace(lines=lines) for piece in pieces]


def _us(ns: I64) -> list[Piece]:
    """Microseconds with three decimals."""
    return [Piece(ns // 1000), Piece(b"."), Piece(ns % 1000, least=3)]


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
