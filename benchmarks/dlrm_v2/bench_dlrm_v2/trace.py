"""How pairs are aggregated into samples: 100 to 700 pairs that follow each other in the data.

The reference draws the size of each sample in turn, from 20 quantiles, and cuts the last one off where the data ends.
89,137,319 pairs become 330,067 samples, to the byte of the official trace (`tests/test_dataset.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from loadgen.contracts import I64, InputError

QUANTILES = (*(100,) * 2, *(200,) * 12, *(300,) * 2, 400, 500, 600, 700)
"""Pairs of a sample at each twentieth of their distribution: `tools/dist_quantile.txt`. Their mean is 270."""
SEED = 123
"""The reference's `--numpy-rand-seed`."""


class Trace(NamedTuple):
    """Sample i is `counts[i]` pairs from pair `starts[i]` on."""

    starts: I64
    counts: I64


def aggregate(pairs: int) -> Trace:
    """The samples of so many pairs, at least one."""
    rng = np.random.RandomState(SEED)  # the reference's own generator
    most = pairs // min(QUANTILES) + 1
    ends = np.cumsum(np.array(QUANTILES)[rng.randint(0, len(QUANTILES), most)])
    ends = np.minimum(ends[: np.searchsorted(ends, pairs) + 1], pairs)
    return Trace(np.concatenate([[0], ends[:-1]]), np.diff(ends, prepend=0))


def write_trace(path: Path, trace: Trace) -> None:
    """As the reference does: a line `first, last + 1, count` for each sample."""
    lines = (f"{start}, {start + count}, {count}\n" for start, count in zip(*(c.tolist() for c in trace), strict=True))
    path.write_text("".join(lines))


def read_trace(path: Path, pairs: int) -> Trace:
    """Samples of data of so many pairs. Raises InputError that names the line that is none, or lies beyond them."""
    rows = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        words = line.split(",")
        if len(words) != 3 or not all(word.strip().isdecimal() for word in words):
            raise InputError(f"{path}, line {number}: {line[:40]!r} is not `first, end, count`: write the trace again")
        start, end, count = map(int, words)
        if end - start != count or count < 1:
            raise InputError(f"{path}, line {number}: {start} to {end} are not {count} pairs: write the trace again")
        if end > pairs:
            raise InputError(
                f"{path}, line {number}: the sample ends at pair {end:,}, but the data has {pairs:,} for validation: "
                "use the trace of this data, or remove it, and the samples are drawn again"
            )
        rows.append((start, count))
    if not rows:
        raise InputError(f"{path} has no samples: remove it, and they are drawn again")
    starts, counts = np.array(rows, np.int64).T
    return Trace(starts, counts)
