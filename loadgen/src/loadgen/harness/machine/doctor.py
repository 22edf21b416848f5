"""The `doctor` command: what of this machine is fit for a run, what is not, and how to mend it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from loadgen.harness.assets import cache
from loadgen.harness.files import above
from loadgen.harness.machine import checks, needs
from loadgen.harness.machine.checks import Finding
from loadgen.harness.machine.telemetry import find_gpus
from loadgen.harness.plan import Plan
from loadgen.memory import available_bytes


def execute(plan: Plan) -> int:
    """Print a line for each check, and a fix where one is needed. Returns 2 if a run is impossible, else 0."""
    found = list(findings(plan))
    problems, warnings = (sum(f.state == state for f in found) for state in (checks.PROBLEM, checks.WARNING))
    for finding in found:
        if finding.state == checks.PROBLEM or not plan.request.quiet:
            print(f"{finding.state:8} {finding.what}: {finding.seen}")
            print(f"{'':8} fix: {finding.fix}\n" if finding.fix else "", end="")
    if not plan.request.quiet:
        print(f"{problems} problems, {warnings} warnings")
    return 2 if problems else 0


def findings(plan: Plan) -> Iterator[Finding]:
    """All checks of this machine for the run that is asked for."""
    online = os.cpu_count() or 1
    yield checks.python()
    yield checks.cores(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else online, online)
    yield checks.load(checks.load_average(), online)
    needed = needs.memory_gb(plan) * 1e9
    yield checks.memory(available_bytes(), needed if plan.device == "cpu" else 0)
    folder = plan.folder
    to_come, _ = needs.disk_bytes(plan.profile, needs.assets(plan), folder)
    yield checks.disk(shutil.disk_usage(above(folder)).free, to_come, folder)
    if logs := needs.log_bytes(plan.tests, plan.profile.samples, plan.profile.answer_bytes):
        output = plan.request.output or Path("results")
        yield checks.disk(shutil.disk_usage(above(output)).free, logs, output, "disk for logs", "--output")
    yield checks.possible(needs.obstacle(plan))
    yield checks.writable("data folder", folder, "name another folder by --data")
    yield checks.writable("cache", cache.root(), "name another folder by XDG_CACHE_HOME")
    yield checks.writable("results folder", plan.request.output or Path("results"), "name another folder by --output")
    yield checks.clock_source()
    yield checks.governor()
    yield checks.timer_slack(checks.lateness_ns())
    yield checks.engine(os.environ.get("DOCKER_HOST", ""), _sockets())
    gpus, why = find_gpus()
    with contextlib.closing(gpus):
        yield checks.gpu(gpus.facts, why, plan.device)
        if plan.device != "cpu":
            yield checks.gpu_memory([free for free in gpus.free_bytes() if free is not None], needed)


def _sockets() -> list[Path]:
    """Docker's, and Podman's for this user and for all."""
    own = os.environ.get("XDG_RUNTIME_DIR")
    places = ["/var/run/docker.sock", *([f"{own}/podman/podman.sock"] if own else []), "/run/podman/podman.sock"]
    return [Path(place) for place in places]
