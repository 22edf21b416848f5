"""What a person sees: progress while a test runs, and the table at the end."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, TextIO, cast

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


class _Lasting:
    """Standard output, until nobody reads it any more (`| head`, a closed terminal): a run goes on without."""

    def __init__(self) -> None:
        self._file: TextIO | None = sys.stdout
        self.encoding = sys.stdout.encoding

    def write(self, text: str) -> int:
        self._do(lambda file: file.write(text))
        return len(text)

    def flush(self) -> None:
        self._do(lambda file: file.flush())

    def isatty(self) -> bool:
        return self._file is not None and self._file.isatty()

    def _do(self, what: Callable[[TextIO], object]) -> None:
        if self._file is None:
            return
        try:
            what(self._file)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            self._file = None
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what the interpreter flushes at its end


def console(quiet: bool) -> Console:
    """Standard output; 110 columns where it is not a terminal, so that tables do not fold."""
    lasting = cast(IO[str], _Lasting())
    return Console(file=lasting, quiet=quiet, width=None if lasting.isatty() else 110, highlight=False)


def describe(progress: Progress, width: int = 200) -> str:
    """`1,234 of 5,000 samples  98.7/s  p50 3.1 ms  p99 8.0 ms  ETA 12 s`.

    In less width the percentiles go first, then the rate: how far it is, and how long it takes, stay."""
    of = f" of {progress.total:,}" if progress.total else ""
    count, rate, shares, end = f"{progress.completed:,}{of}", f"{progress.rate:,.1f}/s", [], []
    if progress.p50_ns is not None and progress.p99_ns is not None:
        shares = [f"p50 {progress.p50_ns / 1e6:.2f} ms", f"p99 {progress.p99_ns / 1e6:.2f} ms"]
    if progress.waiting:
        end = [f"no answer for {progress.silent_s:.0f} s; ids that wait: {', '.join(map(str, progress.waiting))}"]
    elif progress.eta_s:
        end = [f"ETA {progress.eta_s:.0f} s"]
    forms = ([f"{count} samples", rate, *shares, *end], [f"{count} samples", rate, *end], [count, *end])
    texts = ["  ".join(words) for words in forms]
    return next((text for text in texts if len(text) <= width), texts[-1])


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
        room = out.width - len(label) - 1  # a bar, where there is more than what the words need
        bars = [BarColumn(bar_width=24)] if out.width >= 110 else []
        with Bar(TextColumn(label), *bars, TextColumn("{task.fields[text]}"), console=out, transient=True) as bar:
            task = bar.add_task("", total=1.0, text="starting")
            yield lambda p: bar.update(task, completed=share(p), text=describe(p, room))
    else:
        yield _plain(label, out)


def _plain(label: str, out: Console) -> Callable[[Progress], None]:
    last = [time.monotonic()]

    def show(progress: Progress) -> None:
        if time.monotonic() - last[0] >= _PLAIN_PERIOD_S:
            last[0] = time.monotonic()
            out.print(f"{label}: {describe(progress)}", markup=False, soft_wrap=True)

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


_TOKENS = {
    "first token": "result_first_token_99.00_percentile_latency_ns",
    "per token": "result_time_per_output_token_99.00_percentile_ns",
}


def tokens(metrics: Mapping[str, Any]) -> str:
    """`, p99 of first token 31.20 ms, per token 4.10 ms`; empty for a test that counts no tokens."""
    found = [f"{name} {float(metrics[key]) / 1e6:.2f} ms" for name, key in _TOKENS.items() if key in metrics]
    return f", p99 of {', '.join(found)}" if found else ""


def claim(shortfalls: Sequence[str]) -> str:
    """Whether this is a benchmark result, and why not."""
    if not shortfalls:
        return "A benchmark result by the rules, as far as one run can show it."
    if len(shortfalls) == 1:
        return f"Not a benchmark result: {shortfalls[0]}."
    return "\n".join(["Not a benchmark result:", *(f"  {reason}" for reason in shortfalls)])


def table(title: str, rows: Sequence[Row], width: int) -> Table:
    """The results of all tests of one command. On a narrow terminal figures of less weight go first, then columns.

    The result, the verdict and the time of a test are never cut.
    """
    made = Table(title=title, title_justify="left", show_edge=False)
    names: tuple[str, ...] = ("scenario", "mode", "result", "verdict", "queries", "time")
    if width < 88:
        names = ("scenario", "result", "verdict", "time")
    if width < 64:
        names = ("result", "time")
    for name in names:
        made.add_column(
            name,
            justify="right" if name in ("queries", "time") or (name == "result" and width >= 64) else "left",
            no_wrap=name != "result",
            overflow="fold",
        )
    for row in rows:
        cells = _cells(row, width)
        made.add_row(*(cells[name] for name in names))
    return made


def _cells(row: Row, width: int) -> dict[str, str]:
    """Each column's text, as markup: what has no column of its own joins its neighbour's."""
    verdict = f"[{'green' if row.verdict == 'VALID' else 'red'}]{row.verdict}[/]"
    result, scenario = row.measured, row.scenario
    if width < 88:
        scenario = f"{row.scenario}\n{row.mode}"
    if width < 64:
        result = f"{row.scenario} {row.mode}\n{row.measured}\n{verdict}"
    return {
        "scenario": scenario,
        "mode": row.mode,
        "result": result,
        "verdict": verdict,
        "queries": f"{row.queries:,}",
        "time": f"{row.seconds:.1f} s",
    }
