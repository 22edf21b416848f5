"""The charts of what the system did during a test: batches, queue, waiting and computing; use and power of GPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from loadgen.harness.machine.telemetry import Telemetry
from loadgen.harness.report import columns
from loadgen.harness.report.drawing import LINE, SECOND, STYLE, Chart, canvas, label, number, svg, unit_of

_OF_FLOW = ("batch_size", "batches", "slice_end_s", "slice_waiting", "slice_waited_s", "slice_computed_s")


def draw_flow(figures: Mapping[str, Any], prefix: str) -> list[Chart]:
    """How samples went through the system (`serving.flow.measured`): batches, queue, waiting against computing."""
    if not set(_OF_FLOW) <= set(figures):
        return []
    with matplotlib.rc_context(STYLE):
        return [_batches(figures, f"{prefix}b"), _queue(figures, f"{prefix}q"), _shares(figures, f"{prefix}s")]


def _batches(figures: Mapping[str, Any], prefix: str) -> Chart:
    figure, axes = canvas()
    sizes, counts = figures["batch_size"], figures["batches"]
    axes.vlines(sizes, 0, 100 * counts / counts.sum(), color=LINE, linewidth=max(1.5, min(9.0, 160 / sizes.max())))
    axes.set_xlim(0, sizes.max() + 1)
    axes.set_ylim(0, None)
    axes.set_xlabel("samples of a batch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    label(axes, "% of batches")
    mean = np.dot(sizes, counts) / counts.sum()
    note = f"{counts.sum():,} batches, of {mean:.3g} samples on average, {sizes.max():,} at most."
    return Chart("Batches formed", note, svg(figure, prefix))


def _queue(figures: Mapping[str, Any], prefix: str) -> Chart:
    figure, axes = canvas()
    end, waiting = _thinned(figures["slice_end_s"], figures["slice_waiting"], np.max)
    axes.stairs(waiting, np.concatenate([[0], end]), color=LINE, fill=True, alpha=0.25)
    axes.stairs(waiting, np.concatenate([[0], end]), color=LINE)
    over_time(axes, end, "samples")
    note = "The most samples that waited, in each slice of time, when a batch was taken (its own counted)."
    return Chart("Queue over time", note, svg(figure, prefix))


def _shares(figures: Mapping[str, Any], prefix: str) -> Chart:
    figure, axes = canvas()
    there = ~np.isnan(figures["slice_waited_s"])
    end, waited = _thinned(figures["slice_end_s"][there], figures["slice_waited_s"][there], np.mean)
    _, computed = _thinned(figures["slice_end_s"][there], figures["slice_computed_s"][there], np.mean)
    scale, unit = unit_of((1e9 * (waited + computed)).astype(np.int64))
    tops = [1e9 * computed / scale, 1e9 * (waited + computed) / scale]
    edges = np.concatenate([[0], end])
    axes.stairs(tops[0], edges, color=LINE, fill=True, alpha=0.35)
    axes.stairs(tops[1], edges, baseline=tops[0], color=SECOND, fill=True, alpha=0.45)
    over_time(axes, end, unit)
    note = "What a sample took on average: computing (below), and on it waiting for a batch and a worker."
    return Chart("Waiting and computing", note, svg(figure, prefix))


def _thinned(end: columns.F64, values: columns.F64, how: Callable[..., Any]) -> tuple[columns.F64, columns.F64]:
    """At most 240 points: their ends, and of each what `how` makes of its values."""
    count = min(len(end), 240)
    ends = np.array([part[-1] for part in np.array_split(end, count)])
    return ends, np.array([how(part) for part in np.array_split(values, count)])


def over_time(axes: Axes, end: columns.F64, unit: str) -> None:
    axes.set_xlim(0, end[-1])
    axes.set_ylim(0, None)
    axes.set_xlabel("time, s")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(number))
    label(axes, unit)


def draw_gpus(samples: Telemetry, prefix: str) -> list[Chart]:
    """Use and power of the GPUs over time, a line each; a chart only of what at least one reports."""
    gpus = sorted(set(samples.gpu.tolist()))
    wanted = (("use_percent", "GPU use", "%", "u"), ("power_w", "GPU power", "W", "w"))
    with matplotlib.rc_context(STYLE):
        return [
            _gpu_lines(lines, title, unit, prefix + mark)
            for measure, title, unit, mark in wanted
            if (lines := [line for gpu in gpus if len((line := samples.of(gpu, measure))[0])])
        ]


def _gpu_lines(lines: list[tuple[columns.F64, columns.F64]], title: str, unit: str, prefix: str) -> Chart:
    """Of each GPU (times, values); at most 240 points a line, means of slices, as a test can take hours."""
    figure, axes = canvas()
    for line in lines:
        means = ([part.mean() for part in np.array_split(column, min(len(column), 240))] for column in line)
        axes.plot(*means, color=LINE, alpha=1 if len(lines) == 1 else 0.6)
    axes.set_xlim(0, max(1.0, *(float(times[-1]) for times, _ in lines)))
    axes.set_ylim(0, 103 if unit == "%" else None)
    axes.set_xlabel("time, s")
    label(axes, unit)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(number))
    each = f", a line for each of {len(lines)} GPUs" if len(lines) > 1 else ""
    return Chart(f"{title} over time", f"{title} from the loading of samples to the end{each}.", svg(figure, prefix))
