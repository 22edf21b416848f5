"""The columns of a test: saved beside its logs, and drawn down from millions to a chart's few hundred points."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64, InputError
from loadgen.harness.files import saving
from loadgen.results import Records

FILE = "columns.npz"
SYSTEM_FILE = "system.npz"
F64: TypeAlias = npt.NDArray[np.float64]


def save(folder: Path, records: Records) -> None:
    """Write `columns.npz`, 24 bytes a sample; not compressed, since 4 million samples would take 7 s instead of 0.3."""
    present: dict[str, Any] = {f.name: getattr(records, f.name) for f in fields(records)}
    with saving(folder / FILE):
        np.savez(folder / FILE, **{name: column for name, column in present.items() if column is not None})


def read(folder: Path) -> Records:
    """What `save` wrote. Raises InputError that names the file, if it is missing or damaged."""
    file = folder / FILE
    try:
        with np.load(file) as found:
            columns = {name: found[name] for name in found.files}
        records = Records(samples_per_query=int(columns.pop("samples_per_query")), **columns)
        if len(records.latencies_ns) != len(records.scheduled_ns) * records.samples_per_query:
            raise ValueError("columns of different lengths")
    except FileNotFoundError as error:
        raise InputError(f"{file} is not there: run again to get one") from error
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} is damaged ({error}): run again to get one") from error
    return records


def save_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write what a system measured in columns (`contracts.Measures`), in the place of an earlier run's."""
    file = folder / SYSTEM_FILE
    with saving(file):
        file.unlink(missing_ok=True)
        if figures:
            np.savez(file, **figures)


def read_figures(folder: Path) -> dict[str, Any]:
    """What `save_figures` wrote; empty if there is nothing, or it is damaged: a chart less."""
    try:
        with np.load(folder / SYSTEM_FILE) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}


def distribution(ordered: I64, points: int = 240) -> tuple[I64, F64]:
    """(value, share of the sorted samples at or below it, 0 to 1), with a third of the points in the last hundredth."""
    n = len(ordered)
    body = np.linspace(0, n - 1, points)
    tail = n - 1 - 0.01 * n * np.geomspace(1, 1e-4, points // 2)
    ranks = np.unique(np.concatenate([body, tail[tail > 0]]).astype(np.int64))
    return ordered[ranks], (ranks + 1) / n


def time_per_token(records: Records) -> I64:
    """Sorted ns of a token after the first, on average, of each sample that has such; empty without token times."""
    if records.first_token_ns is None or records.n_tokens is None or not records.first_token_ns.any():
        return np.empty(0, np.int64)
    steps = records.n_tokens - 1
    took = (records.completed_ns - records.first_token_ns)[steps > 0] // steps[steps > 0]
    return np.sort(np.maximum(1, took))


def spread_over_time(at_ns: I64, values: I64, slices: int = 160) -> tuple[F64, I64, F64, I64]:
    """(middle of the slice in ns, lowest, median, highest) of each slice of time that has a sample.

    at_ns must not fall. Every extreme of the data is kept, so a single late sample stays in sight.
    """
    slices = max(1, min(slices, len(at_ns) // 4))
    edges = np.linspace(at_ns[0], at_ns[-1] + 1, slices + 1)
    starts = np.searchsorted(at_ns, edges)
    full = np.flatnonzero(np.diff(starts))
    low = np.minimum.reduceat(values, starts[full])
    high = np.maximum.reduceat(values, starts[full])
    median = np.array([np.median(values[starts[i] : starts[i + 1]]) for i in full])
    return (edges[full] + edges[full + 1]) / 2, low, median, high


def rate_over_time(at_ns: I64, end_ns: int, slices: int) -> tuple[F64, F64]:
    """(edges of the slices in seconds, samples a second in each) from 0 to end_ns; one edge more than rates."""
    end = max(1, end_ns)
    inside = at_ns[(at_ns >= 0) & (at_ns <= end)]
    counts = np.bincount(np.minimum(inside * slices // end, slices - 1), minlength=slices)
    return np.linspace(0, end / 1e9, slices + 1), counts / (end / 1e9 / slices)
