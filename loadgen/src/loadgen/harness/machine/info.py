"""The `info` command: what would run, with which settings from where, what that needs and what is there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from loadgen.harness.assets.asset import Asset, fault, substitute
from loadgen.harness.benchmark import Profile
from loadgen.harness.files import above
from loadgen.harness.machine import needs
from loadgen.harness.machine.facts import machine
from loadgen.harness.machine.telemetry import Gpus, find_gpus
from loadgen.harness.plan import Layered, Plan
from loadgen.memory import available_bytes
from loadgen.settings import Mode, Scenario

_PACE = {
    Scenario.SingleStream: "single_stream_expected_latency_ns",
    Scenario.MultiStream: "multi_stream_expected_latency_ns",
    Scenario.Server: "server_target_qps",
    Scenario.Offline: "offline_expected_qps",
}


def describe(plan: Plan) -> Iterator[str]:
    """Lines; no model is loaded, and of files only configs are read."""
    yield plan.benchmark.title
    yield f"profile {plan.profile_name}: {plan.profile.summary}"
    yield f"backend {plan.backend_name}, device {plan.device}, dtype {plan.dtype}, batch {plan.batch}"
    yield f"workers: {plan.request.workers}"
    yield f"compliance tests of {plan.request.overrides.round}: {', '.join(plan.rules.compliance) or 'none'}"
    if why := needs.obstacle(plan):
        yield f"a run would be refused: {why}"
    gpus, why = find_gpus()
    with contextlib.closing(gpus):
        yield from _memory(needs.memory_gb(plan), plan.device, gpus)
    yield from _files(plan)
    yield from (f"{name} {value}" for name, value in {**machine(), **gpus.facts}.items())
    if why:
        yield f"gpu telemetry: none, {why}"
    layers = [test for test in plan.tests if test.settings.mode is Mode.PerformanceOnly]
    yield from _time(plan.profile, layers)
    for layer in layers:
        yield f"{layer.settings.scenario.name}:"
        for name, origin in sorted(layer.origin.items()):
            yield f"  {name} = {getattr(layer.settings, name)}  ({origin})"


def _memory(needed: float, device: str, gpus: Gpus) -> Iterator[str]:
    free, said = available_bytes(), f"about {needed:.1f} GB" if needed else "not known"
    yield f"memory needed: {said}; free: {'not known' if free is None else f'{free / 1e9:.1f} GB'}"
    if device == "cpu":
        yield "gpu memory needed: none with --device cpu"
        return
    found = [f"{free / 1e9:.1f} GB of gpu {n}" for n, free in enumerate(gpus.free_bytes()) if free is not None]
    yield f"gpu memory needed: {said}; free: {', '.join(found) or 'not known'}"


def _files(plan: Plan) -> Iterator[str]:
    listed, profile, folder = needs.assets(plan), plan.profile, plan.folder
    size, unknown = needs.disk_bytes(profile, listed, folder)
    more = f" and {unknown} file{'s' if unknown > 1 else ''} of unknown size" if unknown else ""
    known = size or unknown or listed or profile.disk_gb
    yield f"disk needed: {f'about {_size(size)} more{more}' if known else 'not known'}"
    yield f"files {folder}; free there: {shutil.disk_usage(above(folder)).free / 1e9:.1f} GB"
    if listed:
        yield from (f"  {asset.path}: {_state(asset, folder)}" for asset in listed)
        return
    found = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    yield from (f"  {file.relative_to(folder)}: {file.stat().st_size / 1e6:,.1f} MB" for file in found)
    if not found:
        yield "  none yet: a run makes them"


def _state(asset: Asset, folder: Path) -> str:
    if other := substitute(asset, folder):
        return f"not needed, {other} is there"
    return fault(asset, folder / asset.path, deep=False) or "present"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


def _time(profile: Profile, tests: Sequence[Layered]) -> Iterator[str]:
    yield "expected time, estimated from the settings below, without loading and preparing"
    total = 0.0
    for test in tests:
        settings, scenario = test.settings, test.settings.scenario
        lasts = needs.seconds(settings, profile.samples)
        checks = needs.seconds(replace(settings, mode=Mode.AccuracyOnly), profile.samples)
        total += lasts + checks
        accuracy = _duration(checks) if profile.samples else "not known"
        field = _PACE[scenario]
        at = f"{field} = {getattr(settings, field):g}  ({test.origin.get(field, 'default')})"
        yield f"  {scenario.name}: performance {_duration(lasts)}, accuracy {accuracy}, at {at}"
    yield f"  in total: {_duration(total)}{'' if profile.samples else ', and the accuracy tests'}"


def _duration(seconds: float) -> str:
    """`7.5 s`, `12 min`, `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
