"""Our load generator beside the official wheel: one table of medians and ratios.

`nox -s overhead`. Every figure is a median over pairs of runs that alternate, because machines drift; a
ratio is the median of the pairs' ratios. Highest Server rates are searched on a ladder of 1.2x steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("null_systems.py")
APIS = ("official", "compat", "native")
Run = dict[str, Any]
STEP = 1.2  # of the ladder of rates


def child(api: str, case: str, rate: float, seconds: float) -> Run:
    """One run in a fresh process."""
    command = [sys.executable, str(CHILD), api, case, str(rate), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    run: Run = json.loads(done.stdout.splitlines()[-1])
    return run


def sampled_rate(run: Run) -> float:
    return float(run["samples_per_second"])


# case, rate, seconds, and for each row: name, value of a run, our goal against official (compat, native)
CASES: list[tuple[str, float, float, list[tuple[str, Callable[[Run], float], str, str]]]] = [
    (
        "single",
        0,
        5,
        [
            ("SingleStream null, queries/s", lambda r: r["qps_with_loadgen_overhead"], ">=1.5", ">=3"),
            ("SingleStream null, p50 latency ns", lambda r: r["50.00_percentile_latency_ns"], "<=0.5", "<=0.15"),
            ("SingleStream null, wall beyond 5 s", lambda r: r["wall"] - 5, "<=0.3", "<=0.3"),
            ("SingleStream null, peak MB", lambda r: r["peak_mb"], "<=0.3", "<=0.3"),
        ],
    ),
    ("multi", 0, 3, [("MultiStream of 8, queries/s", lambda r: r["query_count"] / 3, ">=2", ">=4")]),
    ("offline", 1e6, 0.2, [("Offline 1e6, whole wall s", lambda r: r["wall"], "<=0.4", "<=0.05")]),
    (
        "offline",
        4e6,
        0.2,
        [
            ("Offline 4e6, whole wall s", lambda r: r["wall"], "<=0.4", "<=0.05"),
            ("Offline 4e6, peak MB", lambda r: r["peak_mb"], "<=0.6", "<=0.15"),
        ],
    ),
    (
        "server",
        1000,
        3,
        [("Server 1,000 qps, p50 lateness ns", lambda r: r["50.00_percentile_latency_ns"], "<=0.6", "<=0.6")],
    ),
]
LADDERS = [
    ("Server null, highest rate under 10 ms", "server", 60_000.0, ">=1.3", ">=2"),
    ("Server two workers, highest rate under 10 ms", "pool", 12_000.0, ">=1.5", ">=2"),
]


def highest_rate(api: str, case: str, start: float, seconds: float) -> float:
    """The last rung on which a run is VALID with p99 under the limit; a rung has two tries."""
    best, rate = 0.0, start
    while any(_holds(child(api, case, rate, seconds)) for _ in range(2)):
        best, rate = rate, rate * STEP
    return best


def _holds(run: Run) -> bool:
    return run["validity"] == "VALID" and run["99.00_percentile_latency_ns"] < 10_000_000


def compare(pairs: int, only: str) -> list[list[str]]:
    """Rows of the table whose names begin with `only`."""
    rows = []
    for case, rate, seconds, figures in CASES:
        if not figures[0][0].startswith(only):
            continue
        runs: dict[str, list[Run]] = {api: [] for api in APIS}
        for _ in range(pairs):
            for api in APIS:
                runs[api].append(child(api, case, rate, seconds))
        for name, value, *goals in figures:
            rows.append(row(name, {api: [value(run) for run in runs[api]] for api in APIS}, goals))
            print("  ".join(rows[-1]), flush=True)
    for name, case, start, *goals in LADDERS:
        if not name.startswith(only):
            continue
        found: dict[str, list[float]] = {api: [] for api in APIS}
        for _ in range(min(3, pairs)):
            for api in APIS:
                found[api].append(highest_rate(api, case, start, 2))
        rows.append(row(name, found, goals))
        print("  ".join(rows[-1]), flush=True)
    return rows


def row(name: str, values: dict[str, list[float]], goals: list[str]) -> list[str]:
    """Medians of the three APIs, and the median ratio of each of ours with its goal."""
    cells = [name, *(f"{statistics.median(values[api]):,.4g}" for api in APIS)]
    for api, goal in zip(APIS[1:], goals, strict=True):
        pairs = zip(values[api], values["official"], strict=True)
        ratio = statistics.median(ours / max(theirs, 1e-9) for ours, theirs in pairs)
        reached = ratio >= float(goal[2:]) if goal[0] == ">" else ratio <= float(goal[2:])
        cells.append(f"{ratio:.2f}x ({goal}{'' if reached else ' not reached'})")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose names begin so, such as MultiStream")
    asked = parser.parse_args()
    rows = compare(asked.pairs, asked.only)
    header = ["", *APIS, "compat/official", "native/official"]
    print("\n| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
