"""The charts of a test's latencies: their distribution, over time, the throughput, and the rates that were tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from loadgen.contracts import I64
from loadgen.harness.peak import Tried
from loadgen.harness.report import columns
from loadgen.harness.report.drawing import (
    LIMIT,
    LINE,
    SECOND,
    STYLE,
    Chart,
    canvas,
    label,
    limit_note,
    number,
    scale_axis,
    svg,
    unit_of,
)
from loadgen.results import Records, percentile


@dataclass(frozen=True)
class Judged:
    """What the rules judge of a test's latencies; 0: nothing."""

    percentile: float = 0.0
    limit_ns: int = 0
    """Of a latency."""
    first_ns: int = 0
    """Of the time to the first token; so is `token_ns` of that of each later one."""
    token_ns: int = 0


def draw(records: Records, prefix: str, judged: Judged = Judged()) -> list[Chart]:
    """Latency distribution, latency over time, throughput over time, and of token tests the time of a token.

    None for a test without a sample.

    prefix makes the identifiers of each chart its own among all of a page. A test whose queries all came at once has
    no latency over time: there a latency is the time of its answer, which the throughput shows.
    """
    if not len(records.completed_ns):
        return []
    with matplotlib.rc_context(STYLE):
        charts = [_distribution(records, f"{prefix}d", judged)]
        if records.scheduled_ns[-1] > records.scheduled_ns[0]:
            charts.append(_latency_over_time(records, f"{prefix}t", judged.limit_ns))
        charts.append(_throughput(records, f"{prefix}r"))
        if len(steps := columns.time_per_token(records)):
            charts.append(_per_token(steps, f"{prefix}k", judged.token_ns))
    return charts


def draw_rates(tried: Sequence[Tried], prefix: str, judged: Judged) -> Chart:
    """The judged latency at each rate that was tried for Server: full dots held, empty ones did not."""
    limit_ns = judged.limit_ns or judged.first_ns
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas()
        ordered = sorted(tried, key=lambda one: one.rate)
        latencies = np.array([one.latency_ns for one in ordered], np.int64)
        scale, unit = unit_of(latencies)
        axes.plot([one.rate for one in ordered], latencies / scale, color=LINE, linewidth=1)
        for one in ordered:
            face = LINE if one.valid else "none"
            axes.plot([one.rate], [one.latency_ns / scale], "o", color=LINE, markerfacecolor=face, markersize=5)
        if limit_ns:
            axes.axhline(limit_ns / scale, color=LIMIT, linestyle=(0, (4, 2)))
        axes.set_xlim(0, 1.05 * ordered[-1].rate)
        axes.set_xlabel("rate that was tried, queries/s")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(number))
        label(axes, f"{'time to the first token' if judged.first_ns else 'judged latency'}, {unit}")
        scale_axis(axes, "y", latencies, scale, limit_ns)
        note = f"Short tests of the search; full dots held, empty ones did not{limit_note(limit_ns, scale, unit)}."
        return Chart("Latency by rate", note, svg(figure, prefix))


def _distribution(records: Records, prefix: str, judged: Judged) -> Chart:
    """The vertical axis stretches the tail, where the judged percentiles are: 90, 99 and 99.9 % lie evenly."""
    figure, axes = canvas()
    scale, unit = unit_of(records.latencies_ns)
    ordered = np.sort(records.latencies_ns)
    nines = _most_nines(len(ordered))
    _step_line(axes, ordered, scale, nines, LINE)
    note, values, limit_ns = (
        "Share of samples answered within each latency, the tail stretched",
        ordered,
        judged.limit_ns,
    )
    of_judged = ordered
    if judged.percentile:
        note += f"; large dot: p{100 * judged.percentile:g}, which is judged"
    if records.first_token_ns is not None:
        due = np.repeat(records.scheduled_ns, records.samples_per_query)
        first = np.sort(records.first_token_ns - due)
        _step_line(axes, first, scale, nines, SECOND)
        values, note = np.concatenate([values, first]), f"{note}; thin line: time to the first token"
        limit_ns = judged.first_ns
        of_judged = first if judged.first_ns else ordered
    _dot(axes, ordered, 0.5, scale, nines, judged)
    _dot(axes, of_judged, judged.percentile or 0.99, scale, nines, judged)
    _tail_axis(axes, nines)
    mark(axes, limit_ns / scale)
    axes.set_xlabel(f"latency, {unit}")
    scale_axis(axes, "x", values, scale, limit_ns)
    return Chart("Latency distribution", f"{note}{limit_note(limit_ns, scale, unit)}.", svg(figure, prefix))


def _dot(axes: Axes, ordered: I64, p: float, scale: float, nines: float, judged: Judged) -> None:
    """A percentile, by its name; larger if it is the one that is judged."""
    at, height = percentile(ordered, p) / scale, float(_nines(np.array([p]), nines)[0])
    axes.plot([at], [height], "o", color=LINE, markersize=6 if p == judged.percentile else 4)
    left = at > 0.7 * float(ordered[-1]) / scale
    place = (-24 if left else 5, -9 if p > 0.5 else 4)
    axes.annotate(f"p{p * 100:g}", (at, height), place, textcoords="offset points")


def draw_pair(a: I64, b: I64, prefix: str, limit_ns: int = 0) -> Chart:
    """The latency distributions of one test in two runs, over each other."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas()
        both = np.concatenate([a, b])
        scale, unit = unit_of(both)
        nines = _most_nines(max(len(a), len(b)))
        _step_line(axes, np.sort(a), scale, nines, LINE)
        _step_line(axes, np.sort(b), scale, nines, SECOND)
        _tail_axis(axes, nines)
        mark(axes, limit_ns / scale)
        axes.set_xlabel(f"latency, {unit}")
        scale_axis(axes, "x", both, scale, limit_ns)
        note = "Share of samples answered within each latency, the tail stretched: A thick, B thin"
        return Chart("Latency distributions", f"{note}{limit_note(limit_ns, scale, unit)}.", svg(figure, prefix))


def _step_line(axes: Axes, ordered: I64, scale: float, nines: float, colour: str) -> None:
    values, shares = columns.distribution(ordered)
    width = 1.6 if colour == LINE else 1.0
    axes.plot(values / scale, _nines(shares, nines), color=colour, drawstyle="steps-post", linewidth=width)


def _tail_axis(axes: Axes, nines: float) -> None:
    ticks = [share for share in (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999) if share == 0 or -np.log10(1 - share) <= nines]
    axes.set_ylim(0, nines * 1.05)
    axes.set_yticks([float(_nines(np.array([share]), nines)[0]) for share in ticks])
    axes.set_yticklabels([f"{100 * share:g}" for share in ticks])
    label(axes, "% of samples")


def mark(axes: Axes, limit: float) -> None:
    if limit:
        axes.axvline(limit, color=LIMIT, linestyle=(0, (4, 2)))


def _most_nines(count: int) -> float:
    return max(2.0, float(np.log10(max(1, count))))


def _nines(shares: columns.F64, most: float) -> columns.F64:
    """A share as the number of its nines: 0.9 is 1, 0.99 is 2; all samples stand at `most`."""
    nines: columns.F64 = np.minimum(-np.log10(np.maximum(1 - shares, 10.0**-most)), most)
    return nines


def _per_token(steps: I64, prefix: str, limit_ns: int) -> Chart:
    figure, axes = canvas()
    scale, unit = unit_of(steps)
    values, shares = columns.distribution(steps)
    axes.plot(values / scale, shares * 100, color=LINE, drawstyle="steps-post")
    axes.set_ylim(0, 103)
    axes.set_yticks([0, 25, 50, 75, 100])
    label(axes, "% of samples")
    axes.set_xlabel(f"time per output token, {unit}")
    mark(axes, limit_ns / scale)
    scale_axis(axes, "x", values, scale, limit_ns)
    note = "Share of samples whose tokens after the first took, on average, at most so long"
    return Chart("Time per output token", f"{note}{limit_note(limit_ns, scale, unit)}.", svg(figure, prefix))


def _latency_over_time(records: Records, prefix: str, limit_ns: int) -> Chart:
    figure, axes = canvas()
    due = np.repeat(records.scheduled_ns, records.samples_per_query)
    scale, unit = unit_of(records.latencies_ns)
    at, low, median, high = columns.spread_over_time(due, records.latencies_ns)
    axes.fill_between(at / 1e9, low / scale, high / scale, color=LINE, alpha=0.25, linewidth=0.6)
    axes.plot(at / 1e9, median / scale, color=LINE)
    if limit_ns:
        axes.axhline(limit_ns / scale, color=LIMIT, linestyle=(0, (4, 2)))
    axes.set_xlabel("time at which the query was due, s")
    label(axes, f"latency, {unit}")
    scale_axis(axes, "y", np.concatenate([low, high]), scale, limit_ns)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    note = f"Median (line), lowest and highest (band) of {len(at)} slices{limit_note(limit_ns, scale, unit)}."
    return Chart("Latency over time", note, svg(figure, prefix))


def _throughput(records: Records, prefix: str) -> Chart:
    figure, axes = canvas()
    done, end = records.completed_ns, int(records.completed_ns.max())
    slices = int(np.clip(len(done) // 20, 1, 100))
    edges, rate = columns.rate_over_time(done, end, slices)
    axes.stairs(rate, edges, color=LINE, fill=True, alpha=0.25)
    axes.stairs(rate, edges, color=LINE, linewidth=1.4)
    note = f"Samples answered per second, in {slices} slices of time"
    if _offers_a_rate(records):
        due = np.repeat(records.scheduled_ns, records.samples_per_query)
        axes.stairs(columns.rate_over_time(due, end, slices)[1], edges, color=SECOND, linewidth=1)
        note += "; thin line: samples that were due"
    axes.set_ylim(0, None)
    axes.set_xlim(0, None)
    axes.set_xlabel("time, s")
    label(axes, "samples/s")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(number))
    return Chart("Throughput over time", f"{note}.", svg(figure, prefix))


def _offers_a_rate(records: Records) -> bool:
    """Only a schedule of its own (Server) differs from the times of sending."""
    return len(records.scheduled_ns) > 1 and not np.array_equal(records.scheduled_ns, records.issued_ns)
