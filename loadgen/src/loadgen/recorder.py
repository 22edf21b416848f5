"""Completions in columns: what the system answered, and when. Thread-safe, append-only.

`complete` runs once a query inside the measured time, so it is a closure over local names, and it
relies on the interpreter's lock: one store into a column is atomic.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.clock import Clock
from loadgen.contracts import Buffer, Ints

MAX_ERRORS = 100  # kept in full; the rest are counted
_SMALL = 16  # ids up to which a loop beats numpy
_SPOOL_BYTES = 256 << 20  # answers kept in memory before they go to a temporary file


@dataclass(frozen=True)
class LoggedAnswer:
    """One answer that goes to the accuracy log."""

    seq_id: int
    data: bytes
    first_token: bytes | None
    n_tokens: int | None


class Errors:
    """What went wrong, in words, in order; any thread may add."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.count = 0
        self._lock = threading.Lock()

    def add(self, message: str) -> None:
        with self._lock:
            self.count += 1
            if len(self.messages) < MAX_ERRORS:
                self.messages.append(message)


class Recorder:
    """The answers of one run, whose sample ids are 0 .. count - 1: positions in its columns.

    It is the run's `Responder`. keep: None to log no answer, else a flag for each sample.
    first_tokens: each sample must report its first token (token tests outside Offline). spool_dir: where
    answers wait for the log when they outgrow memory; None is the system's folder for temporary files.
    """

    def __init__(
        self,
        count: int,
        clock: Clock,
        errors: Errors,
        *,
        keep: npt.NDArray[np.bool_] | None = None,
        tokens: bool = False,
        first_tokens: bool = False,
        spool_dir: Path | None = None,
    ) -> None:
        self.count = count
        self.errors = errors
        self.now_ns = clock.now_ns
        self.times_only = keep is None and not tokens
        self.failed = False
        # Absolute ns by id; 0 is not answered. Memory that is never written is never taken. The element before the
        # first is no sample's, so that an API whose ids begin at 1 needs no arithmetic.
        column = np.zeros(count + 1, np.int64)
        column[0] = 1
        self.done_view: npt.NDArray[np.int64] = column[1:]
        self.done_from_one = memoryview(column)  # type: ignore[arg-type] # an array is a buffer
        self.done = self.done_from_one[1:]
        self.first = np.zeros(count if tokens else 0, np.int64)
        self.tokens = np.zeros(count if tokens else 0, np.int64)
        self._needs_first = first_tokens
        self._keep = keep
        self._clock = clock
        self._wake = threading.Lock()
        self._wake.acquire()
        self._spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=str(spool_dir) if spool_dir else None)  # noqa: SIM115 - closed in close()
        self._spool_lock = threading.Lock()
        self._spooled = 0
        self._entries: list[tuple[int, int, int]] = []  # (position, offset, length) in order of completion
        self._first_data: dict[int, tuple[int, int]] = {}
        self.answered_at_least = [0]
        """A count of answered samples, to spare MultiStream a look at each: only calls with few ids add to it."""
        self.waiting = array("q", [-1])
        """Position of the sample that somebody waits for, else -1."""
        self.complete = self._timed() if self.times_only else self._logged()

    def _timed(self) -> Any:
        """`complete` for runs that log no answers and count no tokens."""
        now, done, waiting = self._clock.now_ns, self.done, self.waiting
        notify, refuse, many = self.notify, self.refuse, self._many

        def complete(
            ids: Ints,
            data: Buffer | None = None,
            offsets: Sequence[int] | None = None,
            n_tokens: Ints | None = None,
        ) -> None:
            at = now()
            if type(ids) is int:
                try:
                    if ids < 0 or done[ids]:
                        refuse(ids)
                        return
                    done[ids] = at
                except IndexError:
                    refuse(ids)
                    return
            else:
                many(ids, at)
            k = waiting[0]
            if k >= 0 and done[k]:
                notify()

        return complete

    def _logged(self) -> Any:
        """`complete` for runs that log answers or count tokens."""

        def complete(
            ids: Ints,
            data: Buffer | None = None,
            offsets: Sequence[int] | npt.NDArray[np.int64] | None = None,
            n_tokens: Ints | None = None,
        ) -> None:
            self.complete_at(self._clock.now_ns(), ids, data, offsets, n_tokens)

        return complete

    def complete_at(
        self,
        at: int,
        ids: Ints,
        data: Buffer | None = None,
        offsets: Sequence[int] | npt.NDArray[np.int64] | None = None,
        n_tokens: Ints | None = None,
    ) -> None:
        """`complete`, of answers that came at a time already read from the clock."""
        rows = self._rows(ids)
        if rows.size != np.size(ids):
            for one, piece, count in _each(ids, data, offsets, n_tokens):
                if 0 <= one < self.count:
                    self.complete_at(at, one, piece, None, count)
            return
        if len(self.tokens):
            rows = self._count_tokens(rows, n_tokens, at)
        fresh = self._fresh(rows)
        if self._keep is not None and data is not None:
            self._entries.extend(self._store(rows, fresh & self._keep[rows], data, offsets))
        self.done_view[rows[fresh]] = at
        self.notify()

    def keeps(self, position: int) -> bool:
        """Is this sample's answer logged?"""
        return self._keep is not None and 0 <= position < self.count and bool(self._keep[position])

    def first_token(
        self,
        ids: Ints,
        data: Buffer | None = None,
        offsets: Sequence[int] | npt.NDArray[np.int64] | None = None,
    ) -> None:
        """See `contracts.Responder`."""
        self.first_token_at(self._clock.now_ns(), ids, data, offsets)

    def first_token_at(
        self,
        at: int,
        ids: Ints,
        data: Buffer | None = None,
        offsets: Sequence[int] | npt.NDArray[np.int64] | None = None,
    ) -> None:
        """`first_token`, of tokens that came at a time already read from the clock."""
        if not len(self.tokens):
            return
        rows = self._rows(ids)
        if rows.size != np.size(ids):
            for one, piece, _ in _each(ids, data, offsets, None):
                if 0 <= one < self.count:
                    self.first_token_at(at, one, piece)
            return
        for i in rows[self.done_view[rows] != 0]:
            self.errors.add(f"Attempted to record token latency after sample was completed: id {i}")
        self.first[rows] = at
        if self._keep is not None and data is not None:
            for i, offset, length in self._store(rows, self._keep[rows], data, offsets):
                self._first_data[i] = (offset, length)

    def fail(self, message: str) -> None:
        """End the run, INVALID: the system cannot answer. Any thread."""
        self.errors.add(message)
        self.failed = True
        self.notify(force=True)

    def wait(self, position: int, timeout_s: float) -> bool:
        """Wait for this sample's answer, or a failure. False if neither came in time."""
        while True:
            self.waiting[0] = position  # before the look, so that an answer after it wakes us
            if self.done[position] or self.failed:
                break
            if not self._clock.wait(self._wake, timeout_s):
                break
        self.waiting[0] = -1
        return bool(self.done[position]) or self.failed

    def first_missing(self, start: int, stop: int) -> int:
        """The first position in start .. stop - 1 without an answer; stop if there is none."""
        for low in range(start, stop, 65536):
            block = self.done_view[low : min(low + 65536, stop)]
            missing = np.flatnonzero(block == 0)
            if len(missing):
                return low + int(missing[0])
        return stop

    def entries(self) -> Iterator[LoggedAnswer]:
        """Logged answers in order of completion."""
        for position, offset, length in self._entries:
            first = self._first_data.get(position)
            yield LoggedAnswer(
                seq_id=position,
                data=self._read(offset, length),
                first_token=(self._read(*first) if first else b"") if self._needs_first else None,
                n_tokens=int(self.tokens[position]) if len(self.tokens) else None,
            )

    def close(self) -> None:
        self._spool.close()

    def _many(self, ids: Any, at: int) -> None:
        if len(ids) <= _SMALL:
            done, taken = self.done, len(ids)
            for i in ids:
                if not 0 <= i < self.count or done[i]:
                    self.refuse(int(i))
                    taken -= 1
                else:
                    done[i] = at
            self.answered_at_least[0] += taken
            return
        rows = self._rows(ids)
        self.done_view[rows[self._fresh(rows)]] = at

    def _rows(self, ids: Ints) -> npt.NDArray[np.int64]:
        """Column positions of known ids; unknown ones become errors."""
        rows = np.atleast_1d(np.asarray(ids, np.int64))
        known = (rows >= 0) & (rows < self.count)
        if known.all():
            return rows
        for i in rows[~known][:MAX_ERRORS]:
            self.refuse(int(i))
        return rows[known]

    def _fresh(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """True where a position is answered for the first time; the others become errors."""
        fresh: npt.NDArray[np.bool_] = self.done_view[rows] == 0
        if len(rows) > 1 and not (rows[1:] > rows[:-1]).all():
            _, firsts = np.unique(rows, return_index=True)
            once = np.zeros(len(rows), bool)
            once[firsts] = True
            fresh &= once
        if not fresh.all():
            for i in rows[~fresh][:MAX_ERRORS]:
                self.refuse(int(i))
        return fresh

    def _count_tokens(self, rows: npt.NDArray[np.int64], n_tokens: Ints | None, at: int) -> npt.NDArray[np.int64]:
        counts = np.broadcast_to(np.asarray(0 if n_tokens is None else n_tokens, np.int64), rows.shape).copy()
        for i, n in zip(rows[counts < 2].tolist(), counts[counts < 2].tolist(), strict=True):
            self.errors.add(f"{_token_problem(n)}: id {i}, n_tokens {n}")
        counts[counts < 2] = 0
        self.tokens[rows] = counts
        if self._needs_first:
            for i in rows[self.first[rows] == 0]:
                self.errors.add(f"Attempted to record a sample latency before it's first token latency: id {i}")
        return rows

    def _store(
        self,
        rows: npt.NDArray[np.int64],
        wanted: npt.NDArray[np.bool_],
        data: Buffer,
        offsets: Sequence[int] | npt.NDArray[np.int64] | None,
    ) -> Iterator[tuple[int, int, int]]:
        """Copy the wanted answers out of the caller's buffer: (position, offset, length) each."""
        if not wanted.any():
            return
        view = _flat(data)
        try:
            bounds = _bounds(offsets, len(rows), len(view))
        except ValueError as error:
            self.fail(f"id {rows[0]}: {error}")
            return
        with self._spool_lock:
            for j in np.flatnonzero(wanted).tolist():
                piece = view[int(bounds[j]) : int(bounds[j + 1])]
                try:
                    self._spool.write(piece)
                except OSError as error:
                    self.fail(
                        f"id {rows[j]}: its answer cannot be kept for the log: {error}. Free space, or choose "
                        "an output folder with more"
                    )
                    return
                yield int(rows[j]), self._spooled, len(piece)
                self._spooled += len(piece)

    def _read(self, offset: int, length: int) -> bytes:
        self._spool.seek(offset)
        return self._spool.read(length)

    def refuse(self, position: int) -> None:
        """Note an answer that cannot be taken."""
        if 0 <= position < self.count:
            self.errors.add(f"Attempted to complete a sample twice: id {position}")
        else:
            self.errors.add(
                f"Received completion for an unknown sample: id {position}; this run has ids 0 to {self.count - 1}"
            )

    def notify(self, force: bool = False) -> None:
        """Wake whoever waits for an answer that has come."""
        k = self.waiting[0]
        if k >= 0 and (force or self.done[k]):
            self.waiting[0] = -1
            with contextlib.suppress(RuntimeError):  # another thread has just released it
                self._wake.release()


def _each(
    ids: Ints,
    data: Buffer | None,
    offsets: Sequence[int] | npt.NDArray[np.int64] | None,
    n_tokens: Ints | None,
) -> Iterator[tuple[int, Buffer | None, int | None]]:
    """(id, its bytes, its tokens) of each answer: the slow way, for a batch that has unknown ids among others."""
    rows = np.atleast_1d(np.asarray(ids, np.int64))
    counts = None if n_tokens is None else np.broadcast_to(np.asarray(n_tokens, np.int64), rows.shape)
    view = None if data is None else _flat(data)
    cut = offsets is not None and len(offsets) == len(rows) + 1
    for j, one in enumerate(rows.tolist()):
        piece = view if view is None or not cut or offsets is None else view[int(offsets[j]) : int(offsets[j + 1])]
        yield one, piece, None if counts is None else int(counts[j])


def _flat(data: Buffer) -> memoryview:
    view = np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")


def _bounds(
    offsets: Sequence[int] | npt.NDArray[np.int64] | None, count: int, n_bytes: int
) -> Sequence[int] | npt.NDArray[np.int64]:
    """Where each of `count` answers begins and ends. Raises ValueError if the offsets do not fit."""
    if offsets is None and count == 1:
        return (0, n_bytes)
    if offsets is None or len(offsets) != count + 1 or int(offsets[-1]) > n_bytes:
        found = "no" if offsets is None else f"{len(offsets)}"
        raise ValueError(
            f"an answer of {count} ids came with {found} offsets and {n_bytes} bytes: "
            f"pass {count + 1} offsets that end within the buffer"
        )
    return offsets


def _token_problem(n_tokens: int) -> str:
    if n_tokens == 0:
        return "n_tokens argument missing or attempted to record 0 as number of tokens"
    if n_tokens < 0:
        return "Attempted to record a negative number of tokens"
    return "Number of tokens need to be greater than 1"
