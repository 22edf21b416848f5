"""Runs the official LoadGen wheel of this environment on a drawn case and says what it did."""

from __future__ import annotations

import importlib.metadata
import json
import re
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import mlperf_loadgen as lg
import numpy as np
from cases import Case, Manner

from loadgen.settings import Revision, TestSettings

VERSION = importlib.metadata.version("mlcommons-loadgen")
REVISION = Revision.V4_0 if VERSION.startswith("4.") else Revision.V6_0

# Python attributes whose names differ from the C++ fields.
ATTRIBUTES = {"server_ttft_latency": "ttft_latency", "server_tpot_latency": "tpot_latency"}
# Fields without a Python attribute in the 4.0 wheel; a config file sets them.
CONFIG_KEYS = {
    "sample_concatenate_permutation": "*.*.sample_concatenate_permutation",
    "accuracy_log_sampling_target": "*.*.accuracy_log_sampling_target",
}
# Of the trace: a sample's or token's life begins; Server counters of first tokens; what brackets the start.
_LIFE = re.compile(
    r'\{"name":"(Sample|Token)".*"ph":"b".*"ts":(\d+)\.(\d{3}).*"sample_seq":(\d+),"query_seq":(\d+),'
    r'"sample_idx":(\d+),"issue_start_ns":(-?\d+),"complete_ns":(-?\d+)'
)
_TOKEN = re.compile(r'\{"name":"Token_Latency".*"ts":(\d+)\.(\d{3}).*"issue_delay":(-?\d+),"issue_to_done":(-?\d+)')
_SPAN = re.compile(r'\{"name":"(GenerateQueries|SampleLoop)".*"ts":(\d+)\.(\d{3}),"dur":(\d+)\.(\d{3})')


@dataclass(frozen=True)
class Trace:
    """The times of an official run, in ns from the start of its trace. Columns follow the sample ids."""

    indices: Any
    scheduled: Any
    issued: Any
    completed: Any
    first_token: Any
    """Empty unless the run reports first tokens."""
    generated: list[int]
    """When each series had been generated: it starts later."""
    loops: list[int]
    """When each step of the issuing loop began: the first of a series comes after its start."""


@dataclass(frozen=True)
class Observed:
    """What the official LoadGen did with one case."""

    loads: list[list[int]]
    queries: list[list[int]]
    """Sample indices of each issued query."""
    detail: list[dict[str, Any]]
    outdir: Path
    calls: list[str] = field(default_factory=list)
    """The callbacks in order, without repetition."""

    def values(self, key: str) -> list[Any]:
        return [line["value"] for line in self.detail if line["key"] == key]

    @cached_property
    def summary(self) -> str:
        return (self.outdir / "mlperf_log_summary.txt").read_text()

    @cached_property
    def accuracy(self) -> str:
        return (self.outdir / "mlperf_log_accuracy.json").read_text()

    @cached_property
    def trace(self) -> Trace:
        return _trace((self.outdir / "mlperf_log_trace.json").read_text())

    def read(self) -> Observed:
        """Read the files, so that they may be deleted."""
        assert self.summary is not None
        assert self.accuracy is not None
        assert self.trace is not None
        return self


def _trace(text: str) -> Trace:
    samples: dict[int, tuple[int, ...]] = {}
    tokens: dict[int, int] = {}
    for kind, us, ns, seq, _, index, issued, completed in _LIFE.findall(text):
        at = int(us + ns)  # microseconds with three decimals
        if kind == "Sample":
            samples[int(seq)] = int(index), at, at + int(issued), at + int(completed)
        else:
            tokens[int(seq)] = at + int(completed)
    for us, ns, delay, to_done in _TOKEN.findall(text):  # of Server, in issue order
        tokens[len(tokens)] = int(us + ns) + int(delay) + int(to_done)
    rows = np.array([samples[i] for i in sorted(samples)], np.int64).reshape(-1, 4)
    spans = [(name, int(us + ns), int(dus + dns)) for name, us, ns, dus, dns in _SPAN.findall(text)]
    return Trace(
        *rows.T,
        first_token=np.array([tokens[i] for i in sorted(tokens)], np.int64),
        generated=[at + lasted for name, at, lasted in spans if name == "GenerateQueries"],
        loops=[at for name, at, _ in spans if name == "SampleLoop"],
    )


def to_official(settings: TestSettings, scratch: Path) -> lg.TestSettings:
    """The same settings as the official class; what it does not expose goes through a config file."""
    official = lg.TestSettings()
    lines = []
    for item in fields(settings):
        value, name = getattr(settings, item.name), ATTRIBUTES.get(item.name, item.name)
        if item.name == "revision":
            continue
        if item.name == "scenario":
            value = getattr(lg.TestScenario, value.name)
        if item.name == "mode":
            value = getattr(lg.TestMode, value.name)
        if hasattr(official, name):
            setattr(official, name, value)
        elif item.name in CONFIG_KEYS:
            lines.append(f"{CONFIG_KEYS[item.name]} = {int(value)}\n")
    if lines:
        before = {name: getattr(official, name) for name in dir(official) if name[0] != "_"}
        config = scratch / "fields.conf"
        config.write_text("".join(lines))
        kind = (2,) if REVISION is Revision.V6_0 else ()
        if official.FromConfig(str(config), "m", settings.scenario.name, *kind):
            raise RuntimeError(f"the official LoadGen refused {config}")
        assert all(getattr(official, k) == v for k, v in before.items() if k != "FromConfig")
    return official


class System:
    """Answers with 8 bytes, the sample's index, in the case's manner."""

    def __init__(self, manner: Manner, total: int, tokens: bool) -> None:
        self.manner, self.tokens = manner, tokens
        self.answers = np.arange(total, dtype=np.int64)
        self.queries: list[list[int]] = []
        self.calls: list[str] = []
        self.held: list[Any] = []

    def note(self, call: str) -> None:
        if self.calls[-1:] != [call]:
            self.calls.append(call)

    def issue(self, samples: list[Any]) -> None:
        self.note("issue")
        self.queries.append([s.index for s in samples])
        self.held += samples
        self._answer(max(0, len(self.held) - self.manner.held))

    def flush(self) -> None:
        self.note("flush")
        self._answer(len(self.held))

    def _answer(self, count: int) -> None:
        ready, self.held = self.held[:count], self.held[count:]
        if self.manner.is_reversed:
            ready.reverse()
        if not ready:
            return
        base = int(self.answers.ctypes.data)
        if self.tokens:
            lg.FirstTokenComplete([lg.QuerySampleResponse(s.id, base + 8 * s.index, 4) for s in ready])
            done = [lg.QuerySampleResponse(s.id, base + 8 * s.index, 8, 2 + s.index % 5) for s in ready]
        else:
            done = [lg.QuerySampleResponse(s.id, base + 8 * s.index, 8) for s in ready]
        lg.QuerySamplesComplete(done)


def run(case: Case, outdir: Path, *, trace: bool = True) -> Observed:
    """One official test of a case."""
    outdir.mkdir(parents=True, exist_ok=True)
    audit = outdir / "audit.config"
    if case.audit:
        audit.write_text(case.audit)
    loads: list[list[int]] = []
    system = System(case.manner, case.total, case.settings.use_token_latencies)

    def load(indices: Any) -> None:
        system.note("load")
        loads.append(list(indices))

    log = lg.LogSettings()
    log.log_output = lg.LogOutputSettings()
    log.log_output.outdir = str(outdir)
    log.enable_trace = trace
    sut = lg.ConstructSUT(system.issue, system.flush)
    qsl = lg.ConstructQSL(case.total, case.performance, load, lambda _: system.note("unload"))
    try:
        lg.StartTestWithLogSettings(sut, qsl, to_official(case.settings, outdir), log, str(audit))
    finally:
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)
    text = (outdir / "mlperf_log_detail.txt").read_text()
    entries = [parse(line) for line in text.split(":::MLLOG ")[1:]]
    return Observed(loads, system.queries, entries, outdir, system.calls)


def parse(line: str) -> dict[str, Any]:
    """One detail entry. The official log spells NaN as C++ does and may break a line in a string."""
    body = line
    for cpp, python in (("-nan", "NaN"), ("nan", "NaN"), ("-inf", "-Infinity"), ("inf", "Infinity")):
        body = body.replace(f'"value": {cpp},', f'"value": {python},')
    return json.loads(body, strict=False)  # type: ignore[no-any-return]
