"""Completions in columns: what the system answered, and when. Thread-safe, append-only.

`complete` runs once a query inside the measured time, so it is a closure over local names, and it
relies on the interpreter's lock: one store into a column is atomic.
"""

from __future__ import annotations

import contextlib
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.clock import Clock
from loadgen.contracts import I64, Buffer, Ints, Offsets
from loadgen.notes import MAX_ERRORS, Errors
from loadgen.spool import LoggedAnswer, Spool, SpoolError, flat

_SMALL = 16  # ids up to which a loop beats numpy


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
        # first belongs to no sample, so that an API whose ids begin at 1 needs no arithmetic.
        column = np.zeros(count + 1, np.int64)
        column[0] = 1
        self.done_view: I64 = column[1:]
        self.done_from_one = memoryview(column)  # type: ignore[arg-type] # an array is a buffer
        self.done = self.done_from_one[1:]
        self.first = np.zeros(count if tokens else 0, np.int64)
        self.tokens = np.zeros(count if tokens else 0, np.int64)
        self._needs_first = first_tokens
        self.keep = keep
        self.spool = Spool(spool_dir)
        self._clock = clock
        self._began_ns = clock.now_ns()
        self._wake = threading.Lock()
        self._wake.acquire()
        self.answered_at_least = [0]
        """A count of answered samples, to spare MultiStream a look at each: only calls with few ids add to it."""
        self.waiting = array("q", [-1])
        """Position of the sample that somebody waits for, else -1."""
        self.complete = self._timed() if self.times_only else self._logged

    def _timed(self) -> Any:
        """`complete` for runs that log no answers and count no tokens."""
        now, done, waiting = self._clock.now_ns, self.done, self.waiting
        notify, refuse, many, given = self.notify, self.refuse, self._many, self._given

        def complete(
            ids: Ints,
            data: Buffer | None = None,
            offsets: Offsets | None = None,
            n_tokens: Ints | None = None,
            at_ns: Ints | None = None,
        ) -> None:
            at: Any = now() if at_ns is None else given(ids, at_ns)
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

    def _logged(
        self,
        ids: Ints,
        data: Buffer | None = None,
        offsets: Offsets | None = None,
        n_tokens: Ints | None = None,
        at_ns: Ints | None = None,
    ) -> None:
        """`complete` for runs that log answers or count tokens."""
        self.complete_at(self.now_ns() if at_ns is None else self._given(ids, at_ns), ids, data, offsets, n_tokens)

    def complete_at(
        self,
        at: int | I64,
        ids: Ints,
        data: Buffer | None = None,
        offsets: Offsets | None = None,
        n_tokens: Ints | None = None,
    ) -> None:
        """`complete`, of answers that came at a time, or a column of times, that is not questioned."""
        rows, _ = self._known(ids, at)
        if rows.size != np.size(ids):
            for one, piece, count, when in _each(ids, data, offsets, n_tokens, at):
                if 0 <= one < self.count:
                    self.complete_at(when, one, piece, None, count)
            return
        if len(self.tokens):
            self._count_tokens(rows, n_tokens)
        fresh = self._fresh(rows)
        if self.keep is not None and data is not None:
            self._log(self.spool.add, rows, fresh & self.keep[rows], data, offsets)
        self._mark(rows, fresh, at)
        self.notify()

    def first_token(
        self, ids: Ints, data: Buffer | None = None, offsets: Offsets | None = None, at_ns: Ints | None = None
    ) -> None:
        """See `contracts.Responder`."""
        self.first_token_at(self.now_ns() if at_ns is None else self._given(ids, at_ns), ids, data, offsets)

    def first_token_at(
        self, at: int | I64, ids: Ints, data: Buffer | None = None, offsets: Offsets | None = None
    ) -> None:
        """`first_token`, as `complete_at`."""
        if not len(self.tokens):
            return
        rows, _ = self._known(ids, at)
        if rows.size != np.size(ids):
            for one, piece, _, when in _each(ids, data, offsets, None, at):
                if 0 <= one < self.count:
                    self.first_token_at(when, one, piece)
            return
        for i in rows[self.done_view[rows] != 0]:
            self.errors.add(f"Attempted to record token latency after sample was completed: id {i}")
        self.first[rows] = at
        if self.keep is not None and data is not None:
            self._log(self.spool.add_first_tokens, rows, self.keep[rows], data, offsets)

    def keeps(self, position: int) -> bool:
        """Is this sample's answer logged?"""
        return self.keep is not None and 0 <= position < self.count and bool(self.keep[position])

    def fail(self, message: str, details: str = "") -> None:
        """See `contracts.Responder`."""
        self.errors.add(message, details)
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
        return self.spool.answers(self.tokens if len(self.tokens) else None, self._needs_first)

    def close(self) -> None:
        self.spool.close()

    def _given(self, ids: Ints, at_ns: Ints) -> int | I64:
        """A time that the caller has read, or a column of one for each id.

        A time that is still to come, or was before the run, is of another clock: it fails the run, and now stands
        for it.
        """
        now, began = self.now_ns(), self._began_ns
        if type(at_ns) is int and began <= at_ns <= now:
            return at_ns
        rows, times = np.atleast_1d(np.asarray(ids, np.int64)), np.atleast_1d(np.asarray(at_ns, np.int64))
        if not len(rows):
            return now
        if len(times) not in (1, len(rows)):
            self.fail(f"{len(rows)} ids from id {rows[0]} on came with {len(times)} times: pass one, or one for each")
            return now
        strange = np.flatnonzero((times < began) | (times > now))
        if len(strange):
            k = strange[0]
            self.fail(
                f"id {rows[k]} came with the time {times[k]} ns, but the run began at {began} ns, and now it is "
                f"{now} ns: read the run's clock, the real one"
            )
            return now
        return int(times[0]) if len(times) == 1 else times

    def _many(self, ids: Any, at: int | I64) -> None:
        if len(ids) <= _SMALL:
            if type(ids) is np.ndarray:
                ids = ids.tolist()
            if not isinstance(at, int):
                for one, when in zip(ids, at.tolist(), strict=True):
                    self._many((one,), when)
                return
            done, taken = self.done, len(ids)
            for i in ids:
                if not 0 <= i < self.count or done[i]:
                    self.refuse(int(i))
                    taken -= 1
                else:
                    done[i] = at
            self.answered_at_least[0] += taken
            return
        rows, at = self._known(ids, at)
        self._mark(rows, self._fresh(rows), at)

    def _mark(self, rows: I64, fresh: npt.NDArray[np.bool_], at: int | I64) -> None:
        self.done_view[rows[fresh]] = at if isinstance(at, int) else at[fresh]

    def _known(self, ids: Ints, at: int | I64) -> tuple[I64, int | I64]:
        """Column positions of known ids, and their times; unknown ids become errors."""
        rows = np.atleast_1d(np.asarray(ids, np.int64))
        known = (rows >= 0) & (rows < self.count)
        if known.all():
            return rows, at
        for i in rows[~known][:MAX_ERRORS]:
            self.refuse(int(i))
        return rows[known], at if isinstance(at, int) else at[known]

    def _fresh(self, rows: I64) -> npt.NDArray[np.bool_]:
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

    def _count_tokens(self, rows: I64, n_tokens: Ints | None) -> None:
        counts = np.broadcast_to(np.asarray(0 if n_tokens is None else n_tokens, np.int64), rows.shape).copy()
        for i, n in zip(rows[counts < 2].tolist(), counts[counts < 2].tolist(), strict=True):
            self.errors.add(f"{_token_problem(n)}: id {i}, n_tokens {n}")
        counts[counts < 2] = 0
        self.tokens[rows] = counts
        if self._needs_first:
            for i in rows[self.first[rows] == 0]:
                self.errors.add(f"Attempted to record a sample latency before it's first token latency: id {i}")

    def _log(
        self,
        add: Callable[[I64, npt.NDArray[np.bool_], Buffer, Offsets | None], None],
        rows: I64,
        wanted: npt.NDArray[np.bool_],
        data: Buffer,
        offsets: Offsets | None,
    ) -> None:
        """Hand answers or first tokens to the spool. What it cannot keep ends the run."""
        try:
            add(rows, wanted, data, offsets)
        except SpoolError as error:
            self.fail(str(error))

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


def _token_problem(n_tokens: int) -> str:
    if n_tokens == 0:
        return "n_tokens argument missing or attempted to record 0 as number of tokens"
    if n_tokens < 0:
        return "Attempted to record a negative number of tokens"
    return "Number of tokens need to be greater than 1"
