"""What a command line asks for, parsed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loadgen.harness.plan import Overrides, Request
from loadgen.harness.workers.pool import Workers
from loadgen.settings import Mode

_MODES = {
    "performance": (Mode.PerformanceOnly,),
    "accuracy": (Mode.AccuracyOnly,),
    "both": (Mode.PerformanceOnly, Mode.AccuracyOnly),
}


def request(
    *,
    data: Path | None,
    quiet: bool,
    profile: str = "",
    round_: str = "v4.0",
    scenario: tuple[str, ...] = (),
    category: tuple[str, ...] = (),
    mode: str = "both",
    duration: float | None = None,
    qps: float | None = None,
    user_conf: Path | None = None,
    audit_conf: Path | None = None,
    workers: int = 1,
    gpus_per_worker: int = 1,
    worker_kind: str = "thread",
    replicas: int | None = None,
    ray_address: str = "local",
    drain_timeout: float = 600.0,
    **rest: Any,
) -> Request:
    """Options as click gives them, parsed once into the frozen request."""
    return Request(
        scenarios=scenario,
        categories=category,
        modes=_MODES[mode],
        profile=profile,
        data=data,
        quiet=quiet,
        drain_timeout_s=drain_timeout,
        workers=Workers(workers, worker_kind, replicas or 0, ray_address, gpus_per_worker),
        overrides=Overrides(duration, qps, user_conf, audit_conf, round_),
        **rest,
    )
