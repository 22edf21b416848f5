"""The charts of one performance test, as SVG that takes its colours and font from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from loadgen.contracts import I64
from loadgen.harness.machine.telemetry import Telemetry
from loadgen.harness.report import columns
from loadgen.results import Records, percentile

_SIZE = 4.2, 2.5  # inches; 302 points wide, so that 9 points are still 9 pixels on a phone
_INK, _MUTED, _GRID, _LINE, _SECOND, _LIMIT = (f"#0a0b0{i}" for i in range(1, 7))
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--rule)",
    _LINE: "var(--line)",
    _SECOND: "var(--second)",
    _LIMIT: "var(--bad)",
}
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "chart",  # the same data gives the same page
    "svg.fonttype": "none",  # text stays text: small, sharp, searchable, in the page's font
    "font.size": 9,
    "path.simplify": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0,
    "text.color": _INK,
    "lines.linewidth": 1.4,
    "figure.subplot.left": 0.13,  # fixed, so that charts side by side align, and found three times as fast
    "figure.subplot.right": 0.98,
    "figure.subplot.bottom": 0.19,
    "figure.subplot.top": 0.9,
}
_SHORTER = (
    (r"\s*<!--.*?-->", ""),
    (r" id=\"(?![mp][0-9a-f]{10}\")[^\"]*\"", ""),  # only clip paths and markers are referred to
    (r"font-family: [^;\"]*;? ?", ""),
    (r"(\d\.\d\d)\d+", r"\1"),  # hundredths of a point
)


@dataclass(frozen=True)
class Chart:
    """One picture with its words."""

    title: str
    note: str
    svg: str


def draw(records: Records, prefix: str, limit_ns: int = 0) -> list[Chart]:
    """Latency distribution, latency over time, throughput over time, and of token tests the time of a token.

    None for a test without a sample.

    prefix makes the identifiers of each chart its own among all of a page. limit_ns: the scenario's
    latency limit, 0 for none. A test whose queries all came at once has no latency over time: there a
    latency is the time of its answer, which the throughput shows.
    """
    if not len(records.completed_ns):
        return []
    with matplotlib.rc_context(_STYLE):
        charts = [_distribution(records, f"{prefix}d", limit_ns)]
        if records.scheduled_ns[-1] > records.scheduled_ns[0]:
            charts.append(_latency_over_time(records, f"{prefix}t", limit_ns))
        charts.append(_throughput(records, f"{prefix}r"))
        if len(steps := columns.time_per_token(records)):
            charts.append(_per_token(steps, f"{prefix}k"))
    return charts


def draw_gpus(samples: Telemetry, prefix: str) -> list[Chart]:
    """Use and power of the GPUs over time, a line each; a chart only of what at least one reports."""
    gpus = sorted(set(samples.gpu.tolist()))
    wanted = (("use_percent", "GPU use", "%", "u"), ("power_w", "GPU power", "W", "w"))
    with matplotlib.rc_context(_STYLE):
        return [
            _gpu_lines(lines, title, unit, prefix + mark)
            for measure, title, unit, mark in wanted
            if (lines := [line for gpu in gpus if len((line := samples.of(gpu, measure))[0])])
        ]


def draw_rates(tried: Sequence[Mapping[str, Any]], prefix: str, limit_ns: int) -> Chart:
    """The judged latency at each rate that was tried for Server: full dots held, empty ones did not."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas()
        ordered = sorted(tried, key=lambda one: float(one["rate"]))
        latencies = np.array([one["latency_ns"] for one in ordered], np.int64)
        scale, unit = _unit(latencies)
        axes.plot([one["rate"] for one in ordered], latencies / scale, color=_LINE, linewidth=1)
        for one in ordered:
            face = _LINE if one["valid"] else "none"
            axes.plot([one["rate"]], [one["latency_ns"] / scale], "o", color=_LINE, markerfacecolor=face, markersize=5)
        if limit_ns:
            axes.axhline(limit_ns / scale, color=_LIMIT, linestyle=(0, (4, 2)))
        axes.set_xlim(0, 1.05 * float(ordered[-1]["rate"]))
        axes.set_xlabel("rate that was tried, queries/s")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(_number))
        _label(axes, f"judged latency, {unit}")
        _scale(axes, "y", latencies, scale, limit_ns)
        note = f"Short tests of the search; full dots held, empty ones did not{_limit(limit_ns, scale, unit)}."
        return Chart("Latency by rate", note, _svg(figure, prefix))


def _gpu_lines(lines: list[tuple[columns.F64, columns.F64]], title: str, unit: str, prefix: str) -> Chart:
    """Of each GPU (times, values); at most 240 points a line, means of slices, as a test can take hours."""
    figure, axes = _canvas()
    for line in lines:
        means = ([part.mean() for part in np.array_split(column, min(len(column), 240))] for column in line)
        axes.plot(*means, color=_LINE, alpha=1 if len(lines) == 1 else 0.6)
    axes.set_xlim(0, max(1.0, *(float(times[-1]) for times, _ in lines)))
    axes.set_ylim(0, 103 if unit == "%" else None)
    axes.set_xlabel("time, s")
    _label(axes, unit)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    each = f", a line for each of {len(lines)} GPUs" if len(lines) > 1 else ""
    return Chart(f"{title} over time", f"{title} from the loading of samples to the end{each}.", _svg(figure, prefix))


def _distribution(records: Records, prefix: str, limit_ns: int) -> Chart:
    """The vertical axis stretches the tail, where the judged percentiles are: 90, 99 and 99.9 % lie evenly."""
    figure, axes = _canvas()
    scale, unit = _unit(records.latencies_ns)
    ordered = np.sort(records.latencies_ns)
    values, shares = columns.distribution(ordered)
    nines = max(2.0, float(np.log10(len(ordered))))
    axes.plot(values / scale, _nines(shares, nines), color=_LINE, drawstyle="steps-post")
    for p in (0.5, 0.99):
        at, height = percentile(ordered, p) / scale, float(_nines(np.array([p]), nines)[0])
        axes.plot([at], [height], "o", color=_LINE, markersize=4)
        left = at > 0.7 * float(values[-1]) / scale
        axes.annotate(
            f"p{p * 100:g}", (at, height), (-24 if left else 5, -9 if p > 0.5 else 4), textcoords="offset points"
        )
    note = "Share of samples answered within each latency, the tail stretched"
    if records.first_token_ns is not None:
        due = np.repeat(records.scheduled_ns, records.samples_per_query)
        first, shares = columns.distribution(np.sort(records.first_token_ns - due))
        axes.plot(first / scale, _nines(shares, nines), color=_SECOND, drawstyle="steps-post", linewidth=1)
        values, note = np.concatenate([values, first]), f"{note}; thin line: time to the first token"
    if limit_ns:
        axes.axvline(limit_ns / scale, color=_LIMIT, linestyle=(0, (4, 2)))
    ticks = [share for share in (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999) if share == 0 or -np.log10(1 - share) <= nines]
    axes.set_ylim(0, nines * 1.05)
    axes.set_yticks([float(_nines(np.array([share]), nines)[0]) for share in ticks])
    axes.set_yticklabels([f"{100 * share:g}" for share in ticks])
    _label(axes, "% of samples")
    axes.set_xlabel(f"latency, {unit}")
    _scale(axes, "x", values, scale, limit_ns)
    return Chart("Latency distribution", f"{note}{_limit(limit_ns, scale, unit)}.", _svg(figure, prefix))


def _nines(shares: columns.F64, most: float) -> columns.F64:
    """A share as the number of its nines: 0.9 is 1, 0.99 is 2; all samples stand at `most`."""
    nines: columns.F64 = np.minimum(-np.log10(np.maximum(1 - shares, 10.0**-most)), most)
    return nines


def _per_token(steps: I64, prefix: str) -> Chart:
    figure, axes = _canvas()
    scale, unit = _unit(steps)
    values, shares = columns.distribution(steps)
    axes.plot(values / scale, shares * 100, color=_LINE, drawstyle="steps-post")
    axes.set_ylim(0, 103)
    axes.set_yticks([0, 25, 50, 75, 100])
    _label(axes, "% of samples")
    axes.set_xlabel(f"time per output token, {unit}")
    _scale(axes, "x", values, scale, 0)
    note = "Share of samples whose tokens after the first took, on average, at most so long."
    return Chart("Time per output token", note, _svg(figure, prefix))


def _latency_over_time(records: Records, prefix: str, limit_ns: int) -> Chart:
    figure, axes = _canvas()
    due = np.repeat(records.scheduled_ns, records.samples_per_query)
    scale, unit = _unit(records.latencies_ns)
    at, low, median, high = columns.spread_over_time(due, records.latencies_ns)
    axes.fill_between(at / 1e9, low / scale, high / scale, color=_LINE, alpha=0.25, linewidth=0.6)
    axes.plot(at / 1e9, median / scale, color=_LINE)
    if limit_ns:
        axes.axhline(limit_ns / scale, color=_LIMIT, linestyle=(0, (4, 2)))
    axes.set_xlabel("time at which the query was due, s")
    _label(axes, f"latency, {unit}")
    _scale(axes, "y", np.concatenate([low, high]), scale, limit_ns)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    note = f"Median (line), lowest and highest (band) of {len(at)} slices{_limit(limit_ns, scale, unit)}."
    return Chart("Latency over time", note, _svg(figure, prefix))


def _throughput(records: Records, prefix: str) -> Chart:
    figure, axes = _canvas()
    done, end = records.completed_ns, int(records.completed_ns.max())
    slices = int(np.clip(len(done) // 20, 1, 100))
    edges, rate = columns.rate_over_time(done, end, slices)
    axes.stairs(rate, edges, color=_LINE, fill=True, alpha=0.25)
    axes.stairs(rate, edges, color=_LINE, linewidth=1.4)
    note = f"Samples answered per second, in {slices} slices of time"
    if _offers_a_rate(records):
        due = np.repeat(records.scheduled_ns, records.samples_per_query)
        axes.stairs(columns.rate_over_time(due, end, slices)[1], edges, color=_SECOND, linewidth=1)
        note += "; thin line: samples that were due"
    axes.set_ylim(0, None)
    axes.set_xlim(0, None)
    axes.set_xlabel("time, s")
    _label(axes, "samples/s")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    return Chart("Throughput over time", f"{note}.", _svg(figure, prefix))


def _offers_a_rate(records: Records) -> bool:
    """Only a schedule of its own (Server) differs from the times of sending."""
    return len(records.scheduled_ns) > 1 and not np.array_equal(records.scheduled_ns, records.issued_ns)


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE)
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    return figure, axes


def _label(axes: Axes, words: str) -> None:
    """Name the vertical axis above it, level, where it can be read and takes no width."""
    axes.set_title(words, loc="left", x=-0.1, fontsize=9, color=_MUTED, pad=5)


def _number(value: float, _: object = None) -> str:
    """Short enough for an axis: 0.2, 800, 2500, 25k, 1.2M."""
    if abs(value) < 1e4:
        return f"{value:.6g}"
    return f"{value / 1e6:.6g}M" if abs(value) >= 1e6 else f"{value / 1e3:.6g}k"


def _unit(latencies: I64) -> tuple[float, str]:
    """(ns in the unit, its name) that suits the median."""
    median = float(np.median(latencies))
    return next(((ns, name) for ns, name in ((1e9, "s"), (1e6, "ms")) if median >= 0.1 * ns), (1e3, "µs"))


def _limit(limit_ns: int, scale: float, unit: str) -> str:
    return f"; dashed: limit of {limit_ns / scale:g} {unit}" if limit_ns else ""


def _scale(axes: Axes, which: str, values: I64, scale: float, limit_ns: int) -> None:
    """A logarithmic axis where the highest is more than ten times the middle one; else one from 0."""
    low, high = max(1, int(values.min())) / scale, max(int(values.max()), limit_ns) / scale
    middle = float(np.median(values)) / scale
    axis = axes.xaxis if which == "x" else axes.yaxis
    bounds = axes.set_xlim if which == "x" else axes.set_ylim
    axis.set_major_formatter(FuncFormatter(_number))
    if high <= 10 * middle:
        bounds(0, high * 1.08)
        axis.set_major_locator(MaxNLocator(5))
        return
    axes.set(**{f"{which}scale": "log"})
    bounds(low / 1.2, high * 1.3)
    steps = (1.0, 2.0, 5.0) if high <= 500 * low else (1.0, 3.0) if high <= 5000 * low else (1.0,)
    axis.set_major_locator(LogLocator(10, steps))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_number))  # anew: the scale brings its own


def _svg(figure: Figure, prefix: str) -> str:
    """The drawing alone, without header, metadata and fonts; colours become the page's variables."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    body = text[text.index("<g id=") : text.rindex("</svg>")]
    for pattern, kept in (*_SHORTER, (r"(\bid=\"|url\(#|href=\"#)", rf"\1{prefix}")):
        body = re.sub(pattern, kept, body, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    width, height = (72 * side for side in _SIZE)
    return f'<svg viewBox="0 0 {width:g} {height:g}" aria-hidden="true">\n{body}</svg>'
