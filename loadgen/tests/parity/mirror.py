"""Runs our load generator at the very times of an official run, and compares what both did.

Our issuer reads the clock where the official one does, so a clock that shows the official times makes
it take the same decisions: how queries are grouped, after which one it stops, and why.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import replay
from cases import Case, Manner
from official import Observed

from loadgen.clock import Lock
from loadgen.compat.api import _audited
from loadgen.contracts import Ints, Responder
from loadgen.execute import prepare
from loadgen.issuer import issue
from loadgen.logs import AccuracyLog, effective_entries, requested_entries
from loadgen.notes import DetailLog
from loadgen.settings import EffectiveSettings, Mode, Revision, Scenario
from loadgen.spool import Block
from loadgen.state import Job, Part, RunState
from loadgen.testing import FakeClock, FakeLibrary


class OutOfTimes(Exception):
    """We looked at the clock more often than the official run did: it had stopped."""


class Times:
    """A clock that shows given times, one a look."""

    def __init__(self, times: Sequence[int]) -> None:
        self._times = iter(times)

    def now_ns(self) -> int:
        try:
            return next(self._times)
        except StopIteration:
            raise OutOfTimes from None

    def sleep_until(self, due_ns: int) -> None:
        raise AssertionError("the official run was not early here")

    def wait(self, lock: Lock, timeout_s: float) -> bool:
        raise AssertionError("everything is answered when it should be")


class System:
    """`official.System` on our contracts: 8 bytes, the sample's index, in the case's manner."""

    name = "PySUT"

    def __init__(self, manner: Manner, tokens: bool) -> None:
        self.manner, self.tokens = manner, tokens
        self.queries: list[list[int]] = []
        self.held: list[tuple[int, int]] = []

    def start(self, respond: Responder) -> None:
        self.respond = respond

    def stop(self) -> None:
        pass

    def issue(self, ids: Ints, indices: Ints) -> None:
        rows, samples = np.atleast_1d(ids).tolist(), np.atleast_1d(indices).tolist()
        self.queries.append(samples)
        self.held += zip(rows, samples, strict=True)
        self._answer(max(0, len(self.held) - self.manner.held))

    def flush(self) -> None:
        self._answer(len(self.held))

    def _answer(self, count: int) -> None:
        ready, self.held = self.held[:count], self.held[count:]
        if self.manner.is_reversed:
            ready.reverse()
        if not ready:
            return
        ids, indices = map(list, zip(*ready, strict=True))
        data = np.array(indices, np.int64)
        if self.tokens:
            self.respond.first_token(ids, data.astype(np.int32), np.arange(len(ids) + 1) * 4)
        n_tokens = [2 + i % 5 for i in indices] if self.tokens else None
        self.respond.complete(ids, data, np.arange(len(ids) + 1) * 8, n_tokens)


def differences(case: Case, seen: Observed) -> list[str]:
    """Whatever our load generator does otherwise than the official run of this case; [] if nothing."""
    settings, warnings, _ = _audited(case.settings, str(seen.outdir / "audit.config"))
    system = System(case.manner, settings.use_token_latencies)
    clock = FakeClock()
    clock.sleep_until(10**15)  # answers come after the official run's times, at which queries go out
    library = FakeLibrary(case.total, case.performance)
    state = prepare(Job(system, library, clock, DetailLog(clock.now_ns, 0), seen.outdir), settings)
    found = _logged(state.settings, warnings, seen)
    system.start(state.recorder)
    if [list(part.loaded.indices) for part in state.parts] != seen.loads:
        return [*found, "loaded sets"]
    found += _generated(state, seen)
    logged: list[Block] = []
    for k, span in enumerate(_spans(state, seen)):
        found += _part(state, system, seen, k, span)
        if state.recorder.spool is not None:
            logged += state.recorder.spool.take()
    if system.queries != seen.queries:
        found.append(_first_difference(system.queries, seen.queries))
    if not found and (ours := _accuracy(state, logged)) != seen.accuracy:
        found.append(_first_line(ours, seen.accuracy))
    return found


def _logged(settings: EffectiveSettings, warnings: list[str], seen: Observed) -> list[str]:
    """The entries requested_* and effective_*, and what the settings are criticised for."""
    found = []
    ours = [*requested_entries(settings), *effective_entries(settings)]
    theirs = [(e["key"], e["value"]) for e in seen.detail if e["key"].startswith(("requested_", "effective_"))]
    if [k for k, _ in ours] != [k for k, _ in theirs]:
        found.append(f"keys {[k for k, _ in ours]} != {[k for k, _ in theirs]}")
    for (key, a), (_, b) in zip(ours, theirs, strict=False):
        if not replay.same(a, b):
            found.append(f"{key}: official {b!r}, ours {a!r}")
    if list(settings.problems) != seen.values("error_invalid_test_settings"):
        found.append(f"{settings.problems} != {seen.values('error_invalid_test_settings')}")
    theirs_warned = [w for w in seen.values("warning_generic_message") if "Audit" in w or "Test05" in w]
    if warnings != theirs_warned:
        found.append(f"{warnings} != {theirs_warned}")
    return found


def _generated(state: RunState, seen: Observed) -> list[str]:
    """The entries generated_*, of each series."""
    found = []
    for k, part in enumerate(state.parts):
        size = part.series.samples_per_query
        if state.settings.requested.revision is Revision.V4_0:
            size = state.settings.samples_per_query  # release 4.0 reports what was asked for
        ours = {"query_count": part.series.query_count, "samples_per_query": size}
        ours["query_duration"] = part.series.duration_ns
        for name, value in ours.items():
            theirs = seen.values(f"generated_{name}")[k]
            if value != theirs:
                found.append(f"series {k}: generated_{name}: official {theirs}, ours {value}")
    return found


def _spans(state: RunState, seen: Observed) -> Iterator[slice]:
    """Which rows of the trace are of each part: only the last part can have fewer than it planned."""
    for part in state.parts:
        yield slice(part.first_id, min(part.first_id + len(part.series.indices), len(seen.trace.indices)))


def _part(state: RunState, system: System, seen: Observed, k: int, span: slice) -> list[str]:
    """Issue one series at the official times, and judge it if it is timed.

    The trace leaves the start of a stream open by some nanoseconds; one start must explain everything.
    """
    part, trace = state.parts[k], seen.trace
    if part.series.indices[: span.stop - span.start].tolist() != trace.indices[span].tolist():
        return [f"series {k}: indices"]
    if len(part.series.due_ns):
        due = trace.scheduled[span] - trace.scheduled[span.start]
        if due.tolist() != part.series.due_ns[: len(due)].tolist():
            return [f"series {k}: {int((due != part.series.due_ns[: len(due)]).sum())} due times"]
    size = part.series.samples_per_query
    if (span.stop - span.start) % size:
        return [f"series {k}: {span.stop - span.start} samples are no whole queries of {size}"]
    attempts = []
    before = len(system.queries)
    for start in replay.starts(state.settings, seen, k, span):
        _forget(state, part, system, before)
        found = _issued(state, part, system, seen, span, start)
        if part.mode is Mode.PerformanceOnly:
            found += replay.differences(seen, state.settings, size, span, start)
        attempts.append(found)
        if not found:
            break
    return [f"series {k}: {text}" for text in min(attempts, key=len)]


def _forget(state: RunState, part: Part, system: System, queries: int) -> None:
    """Undo an attempt at this part."""
    ids = slice(part.first_id, part.first_id + len(part.series.indices))
    state.recorder.done_view[ids] = 0
    if state.recorder.spool is not None:
        list(state.recorder.spool.take())
    if len(state.recorder.first):
        state.recorder.first[ids] = 0
    del system.queries[queries:]
    system.held = []


def _issued(state: RunState, part: Part, system: System, seen: Observed, span: slice, start: int) -> list[str]:
    """Issue one series at the official times: does it end with the official words?"""
    size = part.series.samples_per_query
    looks = seen.trace.issued[span][::size]
    if state.settings.requested.server_coalesce_queries and state.settings.scenario is Scenario.Server:
        looks = _one_a_group(looks, seen.queries[len(system.queries) :])
    again = Part(part.mode, part.loaded, part.series, part.first_id)
    try:
        issue(replace(state, job=replace(state.job, clock=Times([start, *looks.tolist()]))), again)
    except OutOfTimes:
        return [f"official: {_ending(seen, part)!r} after {len(looks)} queries, ours goes on"]
    found = []
    if (again.message, again.is_error) != _ending(seen, part):
        found.append(f"official: {_ending(seen, part)}, ours: {again.message!r}, {again.is_error}")
    if again.queries * size != span.stop - span.start:
        found.append(f"official ends after {(span.stop - span.start) // size} queries, ours after {again.queries}")
    if state.errors.messages[len(state.settings.problems) :]:
        found.append(f"errors: {state.errors.messages}")
    return found


def _one_a_group(issued: Any, groups: list[list[int]]) -> Any:
    """The issue time of each coalesced query, out of those of its samples."""
    sizes = np.cumsum([0, *map(len, groups)])
    return issued[sizes[sizes < len(issued)]]


def _ending(seen: Observed, part: Part) -> tuple[str, bool]:
    """The official words on the end of a series, and whether they are an error. No accuracy series has any."""
    if part.mode is Mode.AccuracyOnly:
        return "", False
    for entry in seen.detail:
        text = str(entry["value"])
        if entry["key"] in ("generic_message", "error_runtime") and "Ending " in text:
            return text, entry["metadata"]["is_error"]
    return "", False


def _accuracy(state: RunState, logged: list[Block]) -> str:
    """The accuracy log of these answers."""
    file, recorder = io.BytesIO(), state.recorder
    indices = np.concatenate([part.series.indices for part in state.parts])
    first_tokens = recorder.spool.first_tokens if recorder.spool is not None and recorder.needs_first else None
    log = AccuracyLog(file, indices, recorder.tokens if len(recorder.tokens) else None, first_tokens)
    log.write(logged)
    log.close()
    return file.getvalue().decode()


def _first_line(ours: str, theirs: str) -> str:
    a, b = ours.split("\n"), theirs.split("\n")
    k = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f"accuracy log line {k}: official {b[k : k + 1]} of {len(b)}, ours {a[k : k + 1]} of {len(a)}"


def _first_difference(ours: list[list[int]], theirs: list[list[int]]) -> str:
    for k, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if a != b:
            return f"query {k}: official {b[:10]} ({len(b)}), ours {a[:10]} ({len(a)})"
    return f"queries: official {len(theirs)}, ours {len(ours)}"
