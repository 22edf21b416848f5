"""The `info` command: what would run, with which settings from where, what that needs and what is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from loadgen.harness.assets import Asset, fault
from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.harness.layers import layered
from loadgen.harness.machine import machine
from loadgen.harness.session import Request, choose, data_folder, import_name
from loadgen.harness.telemetry import find_gpus
from loadgen.memory import available_bytes
from loadgen.settings import Mode


def describe(benchmark: Benchmark, request: Request) -> Iterator[str]:
    """Lines; nothing is loaded, and no file is read but configs."""
    profile_name, profile, backend, scenarios = choose(benchmark, request)
    folder = data_folder(benchmark, profile_name, request.data)
    yield benchmark.title
    yield f"profile {profile_name}: {profile.summary}"
    yield f"backend {backend}, device {request.device}, dtype {request.dtype}, batch {request.batch}"
    yield f"workers: {request.workers}"
    yield from _memory(benchmark, profile, backend, request)
    yield from _files(benchmark, profile, backend, request, folder)
    gpus, why = find_gpus()
    gpus.close()
    yield from (f"{name} {value}" for name, value in {**machine(), **gpus.facts}.items())
    if why:
        yield f"gpu telemetry: none, {why}"
    for scenario in scenarios:
        layers = layered(benchmark, profile, scenario, Mode.PerformanceOnly, request.overrides)
        yield f"{scenario.name}:"
        for name, origin in sorted(layers.origin.items()):
            yield f"  {name} = {getattr(layers.settings, name)}  ({origin})"


def _memory(benchmark: Benchmark, profile: Profile, backend: str, request: Request) -> Iterator[str]:
    needed = profile.memory_gb
    if isinstance(needed, str):
        needed = float(import_name(needed, "the profile", benchmark)(backend, request.dtype, request.batch))
    free = available_bytes()
    yield (
        f"memory needed: {f'about {needed:.1f} GB' if needed else 'not known'}"
        f"; free: {'not known' if free is None else f'{free / 1e9:.1f} GB'}"
    )


def _files(benchmark: Benchmark, profile: Profile, backend: str, request: Request, folder: Path) -> Iterator[str]:
    yield f"files {folder}; free there: {shutil.disk_usage(_above(folder)).free / 1e9:.1f} GB"
    if profile.assets:
        listed: tuple[Asset, ...] = import_name(profile.assets, "the list of files", benchmark)
        for asset in listed:
            if asset.is_needed(backend, request.dtype):
                yield f"  {asset.path}: {fault(asset, folder / asset.path, deep=False) or 'present'}"
        return
    found = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    yield from (f"  {file.relative_to(folder)}: {file.stat().st_size / 1e6:,.1f} MB" for file in found)
    if not found:
        yield "  none yet: a run makes them"


def _above(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
