"""Our load generator against recorded runs of the official one (`parity/make_golden.py` wrote them)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.execute import prepare
from loadgen.logs import effective_entries, verdict_entries
from loadgen.notes import DetailLog
from loadgen.results import Records, judge
from loadgen.settings import Mode, Revision, Scenario, TestSettings, effective
from loadgen.state import Job, RunState
from loadgen.testing import FakeClock, FakeLibrary, FakeSystem

GOLDEN = Path(__file__).parent / "golden"
CASES = [
    pytest.param(revision, case, id=f"{revision.value}-{k}-{case['settings'].get('scenario', 'SingleStream')}")
    for revision in Revision
    for k, case in enumerate(json.loads((GOLDEN / f"{revision.value.replace('.', '_')}.json").read_text()))
]


def settings_of(revision: Revision, case: dict[str, Any]) -> TestSettings:
    values = dict(case["settings"])
    values["scenario"] = Scenario[values.get("scenario", "SingleStream")]
    values["mode"] = Mode[values.get("mode", "PerformanceOnly")]
    return TestSettings(**values, revision=revision)


def prepared(revision: Revision, case: dict[str, Any]) -> RunState:
    clock, library = FakeClock(), FakeLibrary(case["total"], case["performance"])
    return prepare(Job(FakeSystem(), library, clock, DetailLog(clock.now_ns, 0)), settings_of(revision, case))


def digest(numbers: Sequence[int]) -> list[Any]:
    text = ",".join(map(str, numbers))
    return [len(numbers), hashlib.sha256(text.encode()).hexdigest(), list(numbers[:10])]


@pytest.mark.parametrize(("revision", "case"), CASES)
def test_sequences_are_the_official_ones(revision: Revision, case: dict[str, Any]) -> None:
    """Settings, sets, counts, indices, due times, and which samples are logged."""
    state = prepared(revision, case)
    derived = dict(effective_entries(state.settings))
    for name, value in case["detail"].items():
        assert math.isclose(derived[f"effective_{name}"], value, rel_tol=5e-6), name  # six digits
    assert [digest(part.loaded.indices) for part in state.parts] == case["sets"]
    assert [[part.series.query_count, part.series.duration_ns] for part in state.parts] == case["generated"]
    issued, *_ = case["indices"]  # a performance series may end before everything is issued
    indices = np.concatenate([part.series.indices for part in state.parts])[:issued]
    assert digest(indices.tolist()) == case["indices"]
    dues = [part.series.due_ns[: due[0]].tolist() for part, due in zip(state.parts, case["due"], strict=False)]
    assert [digest(due) for due in dues] == case["due"]
    assert digest([i for i in range(issued) if state.recorder.keeps(i)]) == case["logged"]


@pytest.mark.parametrize(("revision", "case"), [p for p in CASES if "times" in p.values[1]])
def test_judgement_is_the_official_one(revision: Revision, case: dict[str, Any]) -> None:
    """Every reported value, from the official times."""
    times = {name: np.array(column, np.int64) for name, column in case["times"].items()}
    scheduled, size = np.cumsum(times["scheduled"]), case["samples_per_query"]
    completed = np.repeat(scheduled, size) + times["latency"]
    records = Records(
        scheduled_ns=scheduled,
        issued_ns=scheduled + times["delay"],
        completed_ns=completed,
        samples_per_query=size,
        first_token_ns=completed - times["first_token"] if "first_token" in times else None,
        n_tokens=times.get("n_tokens"),
    )
    settings = effective(settings_of(revision, case), case["total"], case["performance"])
    ours = dict(verdict_entries(settings, judge(settings, records)))
    assert list(ours) == list(case["reported"])
    for key, value in case["reported"].items():
        assert same(ours[key], value), key


def same(ours: Any, theirs: Any) -> bool:
    """Rates were printed with six digits; of a stream they also place its start. Officially a line may break."""
    if isinstance(theirs, str):
        return bool(ours == theirs.replace("\n", " "))
    if isinstance(ours, float) and not math.isnan(ours):
        return math.isclose(ours, theirs, rel_tol=2e-5)
    return bool(ours == theirs or (ours != ours and theirs != theirs))
