"""The forms in which a system may pass ids, times and bytes: one, several, columns. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64, Buffer, Ints, Offsets
from loadgen.spool import flat

SMALL = 16
"""Ids up to which a loop beats numpy."""


def memory(column: npt.NDArray[Any] | None) -> Any:
    """To read and write single elements of, several times as fast as of the array."""
    return None if column is None else memoryview(column)  # type: ignore[arg-type]


def listed(values: Ints, count: int = 1) -> list[int]:
    """Whole numbers; one stands for so many."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    return [values] * count if isinstance(values, int) else list(values)


def counts_of(rows: I64, n_tokens: Ints | None) -> I64:
    """Of tokens, for each row."""
    return np.broadcast_to(np.asarray(0 if n_tokens is None else n_tokens, np.int64), rows.shape)


def times_of(ids: Ints, at_ns: Ints, began: int, now: int) -> tuple[int | I64, str]:
    """A time that the caller has read, or a column of one for each id; and what is wrong with them.

    A time that is still to come, or was before the run, is of another clock: now stands for it.
    """
    rows, times = np.atleast_1d(np.asarray(ids, np.int64)), np.atleast_1d(np.asarray(at_ns, np.int64))
    if not len(rows):
        return now, ""
    if len(times) not in (1, len(rows)):
        return now, f"{len(rows)} ids from id {rows[0]} on came with {len(times)} times: pass one, or one for each"
    strange = np.flatnonzero((times < began) | (times > now))
    if len(strange):
        k = strange[0]
        return now, (
            f"id {rows[k]} came with the time {times[k]} ns, but the run began at {began} ns, and now it is {now} ns: "
            "read the run's clock, the real one"
        )
    return int(times[0]) if len(times) == 1 else times, ""


def each(
    ids: Ints, data: Buffer | None, offsets: Offsets | None, n_tokens: Ints | None, at: int | I64
) -> Iterator[tuple[int, Buffer | None, int | None, int]]:
    """(id, its bytes, its tokens, its time) of each answer: the slow way, for a batch with unknown ids among others."""
    rows = np.atleast_1d(np.asarray(ids, np.int64))
    counts = None if n_tokens is None else np.broadcast_to(np.asarray(n_tokens, np.int64), rows.shape)
    times = np.broadcast_to(np.asarray(at, np.int64), rows.shape)
    view = None if data is None else flat(data)
    cut = offsets is not None and len(offsets) == len(rows) + 1
    for j, one in enumerate(rows.tolist()):
        piece = view if view is None or not cut or offsets is None else view[int(offsets[j]) : int(offsets[j + 1])]
        yield one, piece, None if counts is None else int(counts[j]), int(times[j])


def token_problem(n_tokens: int) -> str:
    """The official words."""
    if n_tokens == 0:
        return "n_tokens argument missing or attempted to record 0 as number of tokens"
    if n_tokens < 0:
        return "Attempted to record a negative number of tokens"
    return "Number of tokens need to be greater than 1"
