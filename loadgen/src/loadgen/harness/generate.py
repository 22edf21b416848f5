"""Commands that make files: `synthesize` those of the synthetic profile, `train-mini` the miniature's weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from loadgen.contracts import InputError
from loadgen.harness import display
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.session import Request, bad_input, choose, data_folder, import_name

PROFILE = "synthetic"


def synthesize(benchmark: Benchmark, request: Request) -> int:
    """Make the synthetic profile's files ahead of a run, and say what was written."""
    if PROFILE not in benchmark.profiles:
        raise InputError(f"{benchmark.name} has no {PROFILE} profile: it has {', '.join(benchmark.profiles)}")
    profile = benchmark.profiles[PROFILE]
    choose(benchmark, request)  # a backend that there is not is an error
    folder = data_folder(benchmark, PROFILE, request.data)
    out = display.console(request.quiet)
    before, began = _files(folder), time.monotonic()
    with bad_input():
        if profile.synthesize:
            import_name(profile.synthesize, "the profile", benchmark)(folder, request.backend)
        else:
            import_name(profile.prepare, "the profile", benchmark)(folder)
    for file, (size, changed) in _files(folder).items():
        state = "written" if before.get(file) != (size, changed) else "was there"
        out.print(f"  {file}  {size / 1e6:,.1f} MB  {state}", markup=False, soft_wrap=True)
    out.print(f"{folder}: ready after {time.monotonic() - began:.1f} s", markup=False, soft_wrap=True)
    return 0


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """File below the folder -> (bytes, ns of its last change)."""
    found = {file.relative_to(folder): file.stat() for file in sorted(folder.rglob("*")) if file.is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def train_mini(benchmark: Benchmark, arguments: Sequence[str]) -> int:
    """Hand the words after `train-mini` to the benchmark's training."""
    if not benchmark.train:
        raise InputError(f"{benchmark.name} has no training of its miniature here")
    train = import_name(benchmark.train, "training with the extra pytorch", benchmark)
    try:
        train(list(arguments))
    except SystemExit as done:  # how argparse ends after its help, with 0, and after a usage error, with 2
        return int(done.code or 0)
    return 0
