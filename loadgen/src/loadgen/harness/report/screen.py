"""What a person sees: progress while a test runs, and the table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from loadgen.progress import Progress

_PLAIN_PERIOD_S, _TRANSFER_PERIOD_S = 2.0, 5.0


@dataclass(frozen=True)
class Row:
    """One test in the table."""

    scenario: str
    mode: str
    measured: str
    verdict: str
    queries: int
    seconds: float


def console(quiet: bool) -> Console:
    """Standard output; 110 columns where it is not a terminal, so that tables do not fold."""
    return Console(quiet=quiet, width=None if sys.stdout.isatty() else 110, highlight=False)


def describe(progress: Progress) -> str:
    """`1,234 of 5,000 samples  98.7/s  p50 3.1 ms  p99 8.0 ms  ETA 12 s`."""
    of = f" of {progress.total:,}" if progress.total else ""
    words = [f"{progress.completed:,}{of} samples", f"{progress.rate:,.1f}/s"]
    if progress.p50_ns is not None and progress.p99_ns is not None:
        words.append(f"p50 {progress.p50_ns / 1e6:.2f} ms  p99 {progress.p99_ns / 1e6:.2f} ms")
    if progress.eta_s:
        words.append(f"ETA {progress.eta_s:.0f} s")
    return "  ".join(words)


def share(progress: Progress) -> float:
    """How much is done, 0 to 1: by count where the count is known, else by time."""
    if progress.total:
        return min(1.0, progress.completed / progress.total)
    if progress.eta_s is None:
        return 0.0
    return min(1.0, progress.elapsed_s / max(1e-9, progress.elapsed_s + progress.eta_s))


@contextmanager
def watching(label: str, out: Console) -> Iterator[Callable[[Progress], None] | None]:
    """A callback for `run(progress=...)`: a bar on a terminal, a line now and then elsewhere."""
    if out.quiet:
        yield None
    elif out.is_terminal:
        columns = (TextColumn(label), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
        with Bar(*columns, console=out, transient=True) as bar:
            task = bar.add_task("", total=1.0, text="starting")
            yield lambda p: bar.update(task, completed=share(p), text=describe(p))
    else:
        yield _plain(label, out)


def _plain(label: str, out: Console) -> Callable[[Progress], None]:
    last = [time.monotonic()]

    def show(progress: Progress) -> None:
        if time.monotonic() - last[0] >= _PLAIN_PERIOD_S:
            last[0] = time.monotonic()
            out.print(f"{label}: {describe(progress)}", markup=False)

    return show


@contextmanager
def transferring(label: str, out: Console) -> Iterator[Callable[[int, int], None]]:
    """A callback for `download`, as `watching` has one for `run`."""
    if out.is_terminal and not out.quiet:
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Bar(TextColumn(label), *columns, console=out, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda there, whole: bar.update(task, completed=there, total=whole)
    else:
        yield _plain_transfer(label, out)


def _plain_transfer(label: str, out: Console) -> Callable[[int, int], None]:
    began = last = time.monotonic()
    first: int | None = None

    def show(there: int, whole: int) -> None:
        nonlocal first, last
        first, now = there if first is None else first, time.monotonic()
        if now - last >= _TRANSFER_PERIOD_S and there > first:
            last, rate = now, (there - first) / (now - began)
            text = f"{there / 1e6:,.1f} of {whole / 1e6:,.1f} MB  {rate / 1e6:,.1f} MB/s"
            out.print(f"{label}: {text}  ETA {(whole - there) / rate:.0f} s", markup=False)

    return show


def table(title: str, rows: Sequence[Row]) -> Table:
    """The results of all tests of one command."""
    made = Table(title=title, title_justify="left", show_edge=False)
    columns: tuple[tuple[str, Any], ...] = (
        ("scenario", "left"),
        ("mode", "left"),
        ("result", "right"),
        ("verdict", "left"),
        ("queries", "right"),
        ("time", "right"),
    )
    for name, justify in columns:
        made.add_column(name, justify=justify, no_wrap=name != "result", overflow="fold")
    for row in rows:
        colour = "green" if row.verdict == "VALID" else "red"
        cells = (row.scenario, row.mode, row.measured, f"[{colour}]{row.verdict}[/]")
        made.add_row(*cells, f"{row.queries:,}", f"{row.seconds:.1f} s")
    return made
