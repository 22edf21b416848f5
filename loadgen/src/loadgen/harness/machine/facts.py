"""What machine this is, for reports."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = ("inference-loadgen", "numpy")  # a backend tells the versions of its own


def machine() -> dict[str, str]:
    """Processor, cores that this process may use, memory, system and package versions."""
    facts = {
        "processor": _proc("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts


def _proc(file: str, key: str) -> str | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)


def _memory() -> str:
    total = _proc("/proc/meminfo", "MemTotal")  # "24628492 kB"
    return f"{int(total.split()[0]) / 2**20:.1f} GiB" if total else "unknown"
