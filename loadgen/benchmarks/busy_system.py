"""How late queries are issued beside a system that keeps its interpreter's lock busy: in this process, in its own.

`python busy_system.py --pairs 5`. Server at 1,000 queries/s; the system is one Python thread that answers what is
in its queue and otherwise spins. Lateness is issued - scheduled time; figures are medians over pairs of runs that
alternate, because machines drift, and the ratio is the median of the pairs' ratios. The last columns are the
limit: a system that answers at once and otherwise sleeps, in this process, on the machine as it is and beside an
unconnected process that spins. What is late there is late by the machine's timer and scheduler.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadgen.clock import RealClock
from loadgen.execute import begin, execute, prepare, quiet_gc
from loadgen.harness.workers import ProcessSystem
from loadgen.notes import DetailLog
from loadgen.outcome import columns_of
from loadgen.settings import Scenario, TestSettings
from loadgen.state import Job
from loadgen.testing import FakeLibrary, FakeSystem

RATE = 1000.0
GOAL = 0.2  # of the p99 lateness in one process
COLUMNS = ("in this process", "in its own", "ratio", "idle system", "idle beside a spinning process")


class Busy:
    """Answers in one thread that never waits."""

    name = "busy"

    def start(self, respond: Any) -> None:
        self.complete, self.queue, self.running = respond.complete, deque[Any](), True
        self.thread = threading.Thread(target=self.spin, daemon=True)
        self.thread.start()

    def spin(self) -> None:
        while self.running:
            if self.queue:
                self.complete(self.queue.popleft())

    def issue(self, ids: Any, indices: Any) -> None:
        self.queue.append(ids)

    def flush(self) -> None: ...

    def stop(self) -> None:
        self.running = False
        self.thread.join()


class Beside(FakeSystem):
    """Idle, while a process that has nothing to do with it needs as much of the machine as `Busy`."""

    def start(self, respond: Any) -> None:
        super().start(respond)
        self.other = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def stop(self) -> None:
        self.other.kill()
        self.other.wait()


@dataclass(frozen=True)
class Lateness:
    """Of the queries of one run, in ns."""

    p50: float
    p99: float


def lateness(system: Any, seconds: float) -> Lateness:
    """Run one Server test. Raises RuntimeError if it goes wrong: a latency is no reason, an error is."""
    asked = TestSettings(scenario=Scenario.Server, server_target_qps=RATE, min_duration_ms=int(seconds * 1000))
    clock = RealClock()
    state = prepare(Job(system, FakeLibrary(), clock, DetailLog(clock.now_ns, clock.now_ns())), asked)
    begin(state, ())
    with quiet_gc():
        execute(state)
    if state.errors.count:
        raise RuntimeError(state.errors.messages[0])
    records = columns_of(state, state.parts[-1])
    late = np.percentile(records.issued_ns - records.scheduled_ns, [50, 99])
    return Lateness(*late.tolist())


SYSTEMS: list[Callable[[], Any]] = [Busy, lambda: ProcessSystem(Busy, name="busy"), FakeSystem, Beside]


def compare(pairs: int = 5, seconds: float = 5.0) -> list[list[str]]:
    """Rows of the table: name, then COLUMNS. The ratio says if its goal is not reached."""
    runs = [[lateness(system(), seconds) for system in SYSTEMS] for _ in range(pairs)]
    head = f"Server {RATE:,.0f} qps, "
    return [
        row(head + "p50 lateness us", [[run.p50 / 1e3 for run in pair] for pair in runs]),
        row(head + "p99 lateness us", [[run.p99 / 1e3 for run in pair] for pair in runs]),
    ]


def row(name: str, values: list[list[float]]) -> list[str]:
    """values: a list for each pair: microseconds in the order of SYSTEMS."""
    here, own, *limits = (statistics.median(column) for column in zip(*values, strict=True))
    ratio = statistics.median(pair[1] / pair[0] for pair in values)
    goal = f"{ratio:.3f}x (<={GOAL}{'' if ratio <= GOAL else ' not reached'})"
    return [name, f"{here:,.4g}", f"{own:,.4g}", goal, *(f"{limit:,.4g}" for limit in limits)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    rows = compare(options.pairs, options.seconds)
    print("| | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
