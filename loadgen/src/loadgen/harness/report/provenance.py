"""Where a run's results are from: the code's commit, the files of model and data, the logs, each with a checksum."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from loadgen.harness.assets.asset import digest
from loadgen.harness.assets.cache import checked
from loadgen.harness.machine import needs
from loadgen.harness.plan import Plan

_MOST = 1 << 30  # bytes of a file up to which it is read whole for its checksum: a second or two
_LOGS = ("mlperf_log_*", "accuracy*.txt", "result.json", "telemetry.csv")


def commit(package: str) -> str:
    """Of the repository that a package is imported from, `-dirty` if its files were changed; in an image, which has no
    repository, as INFERENCE_BENCH_COMMIT says; empty: not known."""
    told = os.environ.get("INFERENCE_BENCH_COMMIT", "unknown").replace("unknown", "")
    spec = importlib.util.find_spec(package)
    if told or spec is None or not spec.origin:
        return told
    command = ["git", "-C", str(Path(spec.origin).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def files(plan: Plan) -> dict[str, str]:
    """File that the run reads, below the profile's folder -> what it is: its checksum.

    Of official files the published one, which they were compared with; of others, as a stand-in's weights, their own
    up to 1 GiB.
    """
    found = {}
    for asset in needs.assets(plan) if plan.profile.is_official else ():
        file = plan.folder / asset.path
        if file.is_file():
            kind = "sha256" if asset.sha256 else "md5"
            known = (
                f"{kind} {asset.sha256 or asset.md5}, as published" if asset.has_checksum else "no published checksum"
            )
            found[asset.path] = checked(asset, file) or known
    if not plan.profile.is_official and plan.backend.file:
        file = plan.folder / "model" / plan.backend.file
        if file.is_file() and (own := _digest(file)):
            found[f"model/{plan.backend.file}"] = f"sha256 {own}"
    return found


class Log(NamedTuple):
    """A file of a test."""

    name: str
    place: str
    """Relative to the run's folder."""
    size: int
    sha256: str
    """Empty for one of more than 1 GiB."""


def logs(run: Path, test: Path) -> Iterator[Log]:
    """The logs of a test, those that are there."""
    for pattern in _LOGS:
        for file in sorted(test.glob(pattern)):
            size = file.stat().st_size
            yield Log(file.name, file.relative_to(run).as_posix(), size, _digest(file))


def _digest(file: Path) -> str:
    return digest(file) if file.stat().st_size <= _MOST else ""
