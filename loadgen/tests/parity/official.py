"""Runs the official LoadGen wheel of this environment on a drawn case and says what it did."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import mlperf_loadgen as lg

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


@dataclass(frozen=True)
class Observed:
    """What the official LoadGen did with one case."""

    loads: list[list[int]]
    queries: list[list[int]]
    """Sample indices of each issued query."""
    detail: list[dict[str, Any]]
    outdir: Path

    def values(self, key: str) -> list[Any]:
        return [line["value"] for line in self.detail if line["key"] == key]

    @property
    def summary(self) -> str:
        return (self.outdir / "mlperf_log_summary.txt").read_text()

    def accuracy(self) -> list[dict[str, Any]]:
        return json.loads((self.outdir / "mlperf_log_accuracy.json").read_text())  # type: ignore[no-any-return]

    def trace(self) -> Iterable[str]:
        with (self.outdir / "mlperf_log_trace.json").open() as lines:
            yield from lines


def to_official(settings: TestSettings, scratch: Path) -> lg.TestSettings:
    """The same settings as the official class; what it does not expose goes through a config file."""
    official = lg.TestSettings()
    lines = []
    for field in fields(settings):
        value, name = getattr(settings, field.name), ATTRIBUTES.get(field.name, field.name)
        if field.name == "revision":
            continue
        if field.name == "scenario":
            value = getattr(lg.TestScenario, value.name)
        if field.name == "mode":
            value = getattr(lg.TestMode, value.name)
        if hasattr(official, name):
            setattr(official, name, value)
        elif field.name in CONFIG_KEYS:
            lines.append(f"{CONFIG_KEYS[field.name]} = {int(value)}\n")
    if lines:
        before = {name: getattr(official, name) for name in dir(official) if name[0] != "_"}
        config = scratch / "fields.conf"
        config.write_text("".join(lines))
        kind = (2,) if REVISION is Revision.V6_0 else ()
        if official.FromConfig(str(config), "m", settings.scenario.name, *kind):
            raise RuntimeError(f"the official LoadGen refused {config}")
        assert all(getattr(official, k) == v for k, v in before.items() if k != "FromConfig")
    return official


def run(
    settings: TestSettings,
    total: int,
    performance: int,
    outdir: Path,
    *,
    trace: bool = False,
    audit: Path | None = None,
) -> Observed:
    """One official test against a null system that answers 8 bytes, the sample's index, at once."""
    outdir.mkdir(parents=True, exist_ok=True)
    loads: list[list[int]] = []
    queries: list[list[int]] = []
    tokens = settings.use_token_latencies

    def issue(samples: list[Any]) -> None:
        queries.append([s.index for s in samples])
        if tokens:
            lg.FirstTokenComplete([lg.QuerySampleResponse(s.id, 0, 0) for s in samples])
            answers = [lg.QuerySampleResponse(s.id, 0, 0, 2 + s.index % 5) for s in samples]
        else:
            answers = [lg.QuerySampleResponse(s.id, 0, 0) for s in samples]
        lg.QuerySamplesComplete(answers)

    log = lg.LogSettings()
    log.log_output = lg.LogOutputSettings()
    log.log_output.outdir = str(outdir)
    log.enable_trace = trace
    sut = lg.ConstructSUT(issue, lambda: None)
    qsl = lg.ConstructQSL(total, performance, lambda x: loads.append(list(x)), lambda x: None)
    try:
        lg.StartTestWithLogSettings(
            sut, qsl, to_official(settings, outdir), log, str(audit or outdir / "no-audit.config")
        )
    finally:
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)
    text = (outdir / "mlperf_log_detail.txt").read_text()
    return Observed(loads, queries, [parse(line) for line in text.split(":::MLLOG ")[1:]], outdir)


def parse(line: str) -> dict[str, Any]:
    """One detail entry. The official log spells NaN as C++ does and may break a line in a string."""
    body = line
    for cpp, python in (("-nan", "NaN"), ("nan", "NaN"), ("-inf", "-Infinity"), ("inf", "Infinity")):
        body = body.replace(f'"value": {cpp},', f'"value": {python},')
    return json.loads(body, strict=False)  # type: ignore[no-any-return]
