"""Commands that make files: `synthesize` those of the synthetic profile, `train-mini` the miniature's weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from rich.console import Console

from loadgen.contracts import InputError
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.plan import Plan, Request, import_name, resolve
from loadgen.harness.report import screen
from loadgen.harness.standins.making import provide

PROFILE = "synthetic"
Files: TypeAlias = "dict[Path, tuple[int, int]]"
"""File below a folder -> (bytes, ns of its last change)."""
_MANY = 10
"""More files of a folder than this get one line."""


def synthesize(benchmark: Benchmark, request: Request) -> int:
    """Make the synthetic profile's files ahead of a run, and say what was written.

    The weights are those that the backend reads in its default dtype; without `--backend`, of every backend whose
    packages are installed.
    """
    if PROFILE not in benchmark.profiles:
        raise InputError(f"{benchmark.name} has no {PROFILE} profile: it has {', '.join(benchmark.profiles)}")
    plan = resolve(benchmark, replace(request, profile=PROFILE))
    out = screen.console(request.quiet)
    before, began = _files(plan.folder), time.monotonic()
    plan.imported(plan.profile.prepare, "the profile")(plan.folder)
    asked = (plan.backend,) if request.backend else tuple(benchmark.backends.values())
    for file in dict.fromkeys(backend.file for backend in asked):
        if file and plan.profile.weights:
            _weigh(plan, file, must=bool(request.backend), out=out)
    for line in _lines(before, _files(plan.folder)):
        out.print(line, markup=False, soft_wrap=True)
    out.print(f"{plan.folder}: ready after {time.monotonic() - began:.1f} s", markup=False, soft_wrap=True)
    return 0


def _weigh(plan: Plan, file: str, must: bool, out: Console) -> None:
    """Make one file of weights. must: not being able to is an error, and no reason to go on."""
    try:
        provide(plan.options.model / file, plan.options)
    except InputError as error:
        if must:
            raise
        out.print(f"  {file}: left out ({error})", markup=False, soft_wrap=True)


def _lines(before: Files, after: Files) -> Iterator[str]:
    """One for each file, or for a folder's if they are many."""
    groups: dict[tuple[Path, str], dict[Path, float]] = {}
    for file, entry in after.items():
        state = "was there" if before.get(file) == entry else "written"
        groups.setdefault((file.parent, state), {})[file] = entry[0] / 1e6
    for (place, state), files in groups.items():
        if len(files) > _MANY:
            yield f"  {place}  {len(files):,} files, {sum(files.values()):,.1f} MB  {state}"
        else:
            yield from (f"  {file}  {size:,.1f} MB  {state}" for file, size in files.items())


def _files(folder: Path) -> Files:
    found = {file.relative_to(folder): file.stat() for file in sorted(folder.rglob("*")) if file.is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def train_mini(benchmark: Benchmark, arguments: Sequence[str]) -> int:
    """Hand the words after `train-mini` to the benchmark's training."""
    if not benchmark.train:
        raise InputError(f"{benchmark.name} has no training for its miniature")
    train = import_name(benchmark, benchmark.train, "training", benchmark.train_extra)
    try:
        train(list(arguments))
    except SystemExit as done:  # how argparse ends after its help, with 0, and after a usage error, with 2
        return int(done.code or 0)
    return 0
