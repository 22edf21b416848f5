"""Writes `benchmarks/<name>/requirements.lock`: the versions that the benchmark was tested with.

A constraints file for `pip install -c`: no hashes, no local version tags and no CUDA packages, so that
CPU and CUDA builds of one version both satisfy it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OWN = ("inference-loadgen", "inference-bench-")  # installed from this repository
CUDA = ("nvidia-", "cuda-", "triton", "pytorch-triton")


def resolve(name: str) -> list[dict[str, Any]]:
    """What pip would install for the benchmark with all its extras, in an empty environment."""
    requirements = [f"{ROOT / 'loadgen'}[harness]", f"{ROOT / 'benchmarks' / name}[tests]"]
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    report = subprocess.run([*pip, *requirements], check=True, stdout=subprocess.PIPE, text=True).stdout
    installs: list[dict[str, Any]] = json.loads(report)["install"]
    return installs


def constraints(installs: list[dict[str, Any]]) -> list[str]:
    """Sorted `name==version` lines."""
    pinned = {item["metadata"]["name"].lower(): item["metadata"]["version"].split("+")[0] for item in installs}
    return sorted(f"{name}=={version}" for name, version in pinned.items() if not name.startswith((*OWN, *CUDA)))


def main(name: str) -> None:
    """Resolve and write."""
    lock = ROOT / "benchmarks" / name / "requirements.lock"
    lines = constraints(resolve(name))
    lock.write_text("\n".join([f"# Made by `nox -s lock-{name}`; constraints, applied with -c.", *lines]) + "\n")
    print(f"{lock.relative_to(ROOT)}: {len(lines)} packages")


if __name__ == "__main__":
    main(sys.argv[1])
