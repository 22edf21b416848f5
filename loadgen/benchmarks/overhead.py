"""Our load generator beside the official wheel: one table of medians and ratios.

`nox -s overhead`. Every figure is a median over pairs of runs that alternate, because machines drift; a
ratio is the median of the pairs' ratios, or, where a goal says so, the worst. Highest Server rates are searched on a
ladder of 1.2x steps. On a busy machine `--processor` compares processor time instead: seconds a case, or, of cases
that last for a fixed time, a query.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

CHILD = Path(__file__).with_name("null_systems.py")
APIS = ("official", "compat", "native")
Run = dict[str, Any]
STEP = 1.2  # of the ladder of rates


class Figure(NamedTuple):
    """A row: what it shows of a run, and our goals against official. A goal is `>=1.5`, or `>=1.3!` of each pair."""

    name: str
    value: Callable[[Run], float]
    compat: str
    native: str


class Rows(NamedTuple):
    """One case of `null_systems.py`, and what is shown of it."""

    case: str
    rate: float
    seconds: float
    figures: Sequence[Figure]


def child(api: str, case: str, rate: float, seconds: float) -> Run:
    """One run in a fresh process."""
    command = [sys.executable, str(CHILD), api, case, str(rate), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    run: Run = json.loads(done.stdout.splitlines()[-1])
    return run


def of(key: str) -> Callable[[Run], float]:
    return lambda run: float(run[key])


P50, P99, QPS = "50.00_percentile_latency_ns", "99.00_percentile_latency_ns", "qps_with_loadgen_overhead"
OF_QUERIES = "50.00_percentile_per_query_latency_ns"
CASES = [
    Rows(
        "single",
        0,
        5,
        [
            Figure("SingleStream null, queries/s", of(QPS), ">=1.5", ">=3"),
            Figure("SingleStream null, p50 latency ns", of(P50), "<=0.45", "<=0.15"),
            Figure("SingleStream null, wall beyond 5 s", lambda run: run["wall"] - 5, "<=0.3", "<=0.3"),
            Figure("SingleStream null, peak MB", of("peak_mb"), "<=0.3", "<=0.3"),
        ],
    ),
    Rows("multi", 0, 3, [Figure("MultiStream of 8, queries/s", lambda run: run["query_count"] / 3, ">=2", ">=4")]),
    Rows("offline", 1e6, 0.2, [Figure("Offline 1e6, whole wall s", of("wall"), "<=0.4", "<=0.05")]),
    Rows(
        "offline",
        4e6,
        0.2,
        [
            Figure("Offline 4e6, whole wall s", of("wall"), "<=0.4", "<=0.05"),
            Figure("Offline 4e6, peak MB", of("peak_mb"), "<=0.5", "<=0.15"),
        ],
    ),
    Rows("server", 1000, 3, [Figure("Server 1,000 qps, p50 lateness ns", of(P50), "<=0.6", "<=0.6")]),
    Rows(
        "single-tokens",
        0,
        3,
        [
            Figure("Tokens: SingleStream, queries/s", of(QPS), ">=1", ">=2"),
            Figure("Tokens: SingleStream, p50 latency ns", of(P50), "<=1", "<=0.5"),
        ],
    ),
    Rows("multi-tokens", 0, 3, [Figure("Tokens: MultiStream of 8, p50 of a query ns", of(OF_QUERIES), "<=1", "<=0.5")]),
    Rows("offline-tokens", 2e5, 0.1, [Figure("Tokens: Offline 2e5, whole wall s", of("wall"), "<=1", "<=0.3")]),
    Rows("server-tokens", 30_000, 3, [Figure("Tokens: Server 30,000 qps, p99 ns", of(P99), "<=1", "<=0.7")]),
    Rows("single-logged", 0, 3, [Figure("Logged 1 %: SingleStream, queries/s", of(QPS), ">=1", ">=2")]),
    Rows(
        "single-trace",
        0,
        3,
        [
            Figure("Trace: SingleStream, queries/s", of(QPS), ">=1", ">=2"),
            Figure("Trace: SingleStream, p50 latency ns", of(P50), "<=1", "<=0.5"),
            Figure("Trace: SingleStream, wall beyond 3 s", lambda run: run["wall"] - 3, "<=1", "<=1"),
        ],
    ),
    Rows("accuracy", 1e5, 0, [Figure("Accuracy: Offline 1e5, whole wall s", of("wall"), "<=1", "<=0.3")]),
    Rows("accuracy-1kB", 5e4, 0, [Figure("Accuracy: 50,000 of 1 kB, whole wall s", of("wall"), "<=1", "<=1")]),
    Rows(
        "accuracy-3MB",
        500,
        0,
        [
            Figure("Accuracy: 500 of 3 MB, whole wall s", of("wall"), "<=1", "<=1"),
            Figure("Accuracy: 500 of 3 MB, peak MB", of("peak_mb"), "<=0.25", "<=0.25"),
        ],
    ),
]
LADDERS = [
    ("Server null, highest rate under 10 ms", "server", 60_000.0, ">=1.3!", ">=2"),
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


def alternating(pairs: int, measure: Callable[[str], Any]) -> dict[str, list[Any]]:
    """By API, one after another, several times."""
    found: dict[str, list[Any]] = {api: [] for api in APIS}
    for _ in range(pairs):
        for api in APIS:
            found[api].append(measure(api))
    return found


def compare(pairs: int, only: str, processor: bool) -> list[list[str]]:
    """Rows of the table whose names begin with `only`."""
    rows = []
    for case in CASES:
        figures = [_processor(case)] if processor else case.figures
        if not any(figure.name.startswith(only) for figure in case.figures) or (processor and "server" in case.case):
            continue  # a Server test sleeps most of the time
        runs = alternating(pairs, lambda api, case=case: child(api, case.case, case.rate, case.seconds))  # type: ignore[misc]
        for figure in figures:
            values = {api: [figure.value(run) for run in runs[api]] for api in APIS}
            rows.append(row(figure.name, values, [figure.compat, figure.native]))
            print("  ".join(rows[-1]), flush=True)
    for name, what, start, *goals in LADDERS:
        if name.startswith(only) and not processor:
            found = alternating(min(3, pairs), lambda api, what=what, start=start: highest_rate(api, what, start, 2))  # type: ignore[misc]
            rows.append(row(name, found, goals))
            print("  ".join(rows[-1]), flush=True)
    return rows


def _processor(case: Rows) -> Figure:
    """Processor seconds of a case; of one that lasts for a fixed time, microseconds a query."""
    fixed = case.case.startswith(("single", "multi"))
    first = case.figures[0]
    name = first.name.partition(",")[0] + (", processor us a query" if fixed else ", processor s")
    compat, native = (
        goal if goal[0] == "<" else f"<={1 / float(goal[2:]):.2g}" for goal in (first.compat, first.native)
    )
    return Figure(name, lambda run: run["cpu"] / (run["query_count"] / 1e6 if fixed else 1), compat, native)


def row(name: str, values: dict[str, list[float]], goals: list[str]) -> list[str]:
    """Medians of the three APIs, and the median ratio of each of ours with its goal."""
    cells = [name, *(f"{statistics.median(values[api]):,.4g}" for api in APIS)]
    for api, goal in zip(APIS[1:], goals, strict=True):
        pairs = zip(values[api], values["official"], strict=True)
        ratios = sorted(ours / max(theirs, 1e-9) for ours, theirs in pairs)
        more, limit = goal[0] == ">", float(goal[2:].rstrip("!"))
        ratio, said = statistics.median(ratios), goal
        if goal.endswith("!"):
            ratio, said = ratios[0 if more else -1], f"{goal[:-1]} in every pair; median {ratio:.2f}x"
        reached = ratio >= limit if more else ratio <= limit
        cells.append(f"{ratio:.2f}x ({said}{'' if reached else ' not reached'})")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose names begin so, such as MultiStream, Tokens, Accuracy")
    parser.add_argument("--processor", action="store_true", help="compare processor time; for a busy machine")
    asked = parser.parse_args()
    rows = compare(asked.pairs, asked.only, asked.processor)
    header = ["", *APIS, "compat/official", "native/official"]
    print("\n| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
