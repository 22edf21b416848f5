"""Refuses a test whose queries would not fit in memory, before it takes any."""

from __future__ import annotations

import os
from pathlib import Path

from loadgen.generation import expected_queries
from loadgen.settings import EffectiveSettings, Scenario, SettingsError

_QUERY_BYTES = 24  # when it was due, scheduled and issued
_SAMPLE_BYTES = 48  # its index and its answer's time; its id, and as much again while they are drawn and handed over
_TOKEN_BYTES = 16  # the first token's time and the count
_LIBRARY_BYTES = 48  # a library's sample while it is shuffled

_REMEDIES = {
    Scenario.SingleStream: "raise single_stream_expected_latency_ns (now {0.single_stream_expected_latency_ns:g}) to "
    "what a query takes",
    Scenario.MultiStream: "raise multi_stream_expected_latency_ns (now {0.multi_stream_expected_latency_ns:g}) to "
    "what a query takes",
    Scenario.Server: "lower server_target_qps (now {0.server_target_qps:g})",
    Scenario.Offline: "lower offline_expected_qps (now {0.offline_expected_qps:g})",
}


def check_fits(
    settings: EffectiveSettings, total_count: int, system_bytes: int = 0, available: int | None = None
) -> None:
    """Raise SettingsError if a performance test needs more than the memory that is free.

    total_count: samples of the library. system_bytes: what the system takes for each sample of a query. available:
    bytes, measured by default.
    """
    available = available_bytes() if available is None else available
    queries = expected_queries(settings, total_count)
    samples = queries * settings.samples_per_query
    a_sample = _SAMPLE_BYTES + (_TOKEN_BYTES if settings.requested.use_token_latencies else 0)
    if settings.scenario is Scenario.Offline:  # whose samples are all there at once
        a_sample += system_bytes
    needed = queries * _QUERY_BYTES + samples * a_sample + total_count * _LIBRARY_BYTES
    if available is None or needed <= available:
        return
    remedy = _REMEDIES[settings.scenario].format(settings.requested)
    raise SettingsError(
        f"this test would generate {queries:,} queries of {samples:,} samples, which need about "
        f"{needed / 1e9:,.1f} GB; {available / 1e9:,.1f} GB of memory are free: {remedy}, or lower min_duration_ms "
        f"(now {settings.min_duration_ms}) or min_query_count (now {settings.requested.min_query_count})"
    )


def available_bytes() -> int | None:
    """Memory that this process may still take: the machine's, or its container's if that is less. None: unknown."""
    found = [value for value in (_machine(), _container()) if value is not None]
    return min(found, default=None)


def _machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        names = os.sysconf_names if hasattr(os, "sysconf") else {}
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _container(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What control groups leave, version 2 or 1. Files that the system only caches count as free."""
    for limit, used, stat, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            taken = int((root / used).read_text())
            rows = dict(line.split() for line in (root / stat).read_text().splitlines())
            return max(0, int((root / limit).read_text()) - taken + int(rows.get(cached, 0)))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return None
