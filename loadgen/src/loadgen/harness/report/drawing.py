"""What all charts share: a frame, axes, units, and SVG that takes its colours and font from the page around it."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from loadgen.contracts import I64

_SIZE = 4.2, 2.5  # inches; 302 points wide, so that 9 points are still 9 pixels on a phone
INK, MUTED, GRID, LINE, SECOND, LIMIT = (f"#0a0b0{i}" for i in range(1, 7))
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--rule)",
    LINE: "var(--line)",
    SECOND: "var(--second)",
    LIMIT: "var(--bad)",
}
STYLE: dict[Any, Any] = {
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
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "text.color": INK,
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
    (r"(\d\.\d\d)\d+(?!\d*<)", r"\1"),  # hundredths of a point; what is written on an axis stays
)


@dataclass(frozen=True)
class Chart:
    """One picture with its words."""

    title: str
    note: str
    svg: str


def canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE)
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    return figure, axes


def label(axes: Axes, words: str) -> None:
    """Name the vertical axis above it, level, where it can be read and takes no width."""
    axes.set_title(words, loc="left", x=-0.1, fontsize=9, color=MUTED, pad=5)


def number(value: float, _: object = None) -> str:
    """Short enough for an axis: 0.2, 800, 2500, 25k, 1.2M."""
    if abs(value) < 1e4:
        return f"{value:.6g}"
    return f"{value / 1e6:.6g}M" if abs(value) >= 1e6 else f"{value / 1e3:.6g}k"


def unit_of(latencies: I64) -> tuple[float, str]:
    """(ns in the unit, its name) that suits the median."""
    median = float(np.median(latencies))
    return next(((ns, name) for ns, name in ((1e9, "s"), (1e6, "ms")) if median >= 0.1 * ns), (1e3, "µs"))


def limit_note(limit_ns: int, scale: float, unit: str) -> str:
    return f"; dashed: limit of {limit_ns / scale:g} {unit}" if limit_ns else ""


def scale_axis(axes: Axes, which: str, values: I64, scale: float, limit_ns: int) -> None:
    """A logarithmic axis where the highest is more than ten times the middle one; else one from 0."""
    low, high = max(1, int(values.min())) / scale, max(int(values.max()), limit_ns) / scale
    middle = float(np.median(values)) / scale
    axis = axes.xaxis if which == "x" else axes.yaxis
    bounds = axes.set_xlim if which == "x" else axes.set_ylim
    axis.set_major_formatter(FuncFormatter(number))
    if high <= 10 * middle:
        bounds(0, high * 1.08)
        axis.set_major_locator(MaxNLocator(5))
        return
    axes.set(**{f"{which}scale": "log"})
    bounds(low / 1.2, high * 1.3)
    steps = (1.0, 2.0, 5.0) if high <= 500 * low else (1.0, 3.0) if high <= 5000 * low else (1.0,)
    axis.set_major_locator(LogLocator(10, steps))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(number))  # anew: the scale brings its own


def svg(figure: Figure, prefix: str) -> str:
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
