"""Completions in columns: what the system answered, and when. Thread-safe, append-only.

`complete` and `first_token` run once a query inside the measured time, so they are closures over local names. Of two
threads that answer one sample at once, one is refused: answers of many ids, and those that are logged, take a lock. An
answer of one id needs none where the interpreter has a lock of its own and, as CPython since 3.11, changes threads at
calls and backward jumps only: what stands between such points is done at once. That a lock is held meanwhile
(`attention`) it sees when it is done, and looks again.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.clock import Clock
from loadgen.contracts import I64, Buffer, Ints, Offsets
from loadgen.notes import Errors
from loadgen.spool import Spool, SpoolError, flat

_SMALL = 16  # ids up to which a loop beats numpy


def answers_need_lock() -> bool:
    """Can another thread run between two steps of one line of code?"""
    return sys.version_info < (3, 11) or not getattr(sys, "_is_gil_enabled", lambda: True)()


class Recorder:
    """The answers of one run, whose sample ids are 0 .. count - 1: positions in its columns.

    It is the run's `Responder`. keep: None to log no answer, else a flag for each sample. spool: where answers wait for
    the log; None drops them. first_tokens: each sample must report its first token (token tests outside Offline).
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
        spool: Spool | None = None,
    ) -> None:
        self.count = count
        self.errors = errors
        self.now_ns = clock.now_ns
        self.times_only = keep is None and not tokens
        self.locks = answers_need_lock()
        self.failed = False
        # Absolute ns by id; 0 is not answered. Memory that is never written is never taken.
        self.done_view: I64 = np.zeros(count, np.int64)
        self.done = memoryview(self.done_view)  # type: ignore[arg-type] # an array is a buffer
        self.first = np.zeros(count if tokens else 0, np.int64)
        self.tokens = np.zeros(count if tokens else 0, np.int64)
        self.needs_first = first_tokens
        self.keep = keep
        self.spool = spool
        self._clock = clock
        self._began_ns = clock.now_ns()
        self._wake = threading.Lock()
        self._wake.acquire()
        self._lock = threading.RLock()  # a signal's handler may answer, too
        self._waiting = -1
        self.answered_at_least = [0]
        """A count of answered samples, to spare MultiStream a look at each: only calls with few ids add to it."""
        self.attention = array("q", [0])
        """Not 0: somebody waits for an answer, or holds the lock for answers of many ids; then `attend`."""
        self.complete_one = self._one()
        self.complete = self._timed() if self.times_only else self._full()
        self.first_token, self.first_token_one = self._first_token()

    # What is called for each query. Between `if done[...]` and the read of `attention` stands no call.

    def _timed(self) -> Any:
        """`complete` for runs that log no answers and count no tokens."""
        now, done, attention = self._clock.now_ns, self.done, self.attention
        attend, refuse, many, given, needs_lock = self.attend, self.refuse, self._many, self._given, self.locks

        def complete(
            ids: Ints,
            data: Buffer | None = None,
            offsets: Offsets | None = None,
            n_tokens: Ints | None = None,
            at_ns: Ints | None = None,
        ) -> None:
            at: Any = now() if at_ns is None else given(ids, at_ns)
            if type(ids) is not int or needs_lock:
                many(ids, at)
                return
            try:
                if ids < 0 or done[ids]:
                    refuse(ids)
                    return
                done[ids] = at
            except IndexError:
                refuse(ids)
                return
            if attention[0]:
                attend(ids, at)

        return complete

    def _full(self) -> Any:
        """`complete` for runs that log answers or count tokens."""
        now, given, one, many = self._clock.now_ns, self._given, self.complete_one, self.complete_many

        def complete(
            ids: Ints,
            data: Buffer | None = None,
            offsets: Offsets | None = None,
            n_tokens: Ints | None = None,
            at_ns: Ints | None = None,
        ) -> None:
            at: Any = now() if at_ns is None else given(ids, at_ns)
            if type(ids) is int and type(at) is int:
                one(at, ids, data, n_tokens, offsets)
            else:
                many(at, ids, data, offsets, n_tokens)

        return complete

    def _one(self) -> Callable[..., None]:
        """`complete_one`: `complete` of one id, at a time that is not questioned."""
        done, attention, attend, locked, needs_lock = self.done, self.attention, self.attend, self._locked, self.locks
        first, tokens, keeps = _memory(self.first), _memory(self.tokens), _memory(self.keep)
        counts, logs, needs_first = len(self.tokens) > 0, self.keep is not None, self.needs_first

        def complete_one(
            at: int, position: int, data: Buffer | None = None, n_tokens: Any = None, offsets: Offsets | None = None
        ) -> None:
            try:
                if (
                    position < 0
                    or needs_lock
                    or (logs and keeps[position])
                    or (counts and (type(n_tokens) is not int or n_tokens < 2))
                    or (needs_first and not first[position])
                    or done[position]
                ):
                    locked(at, position, data, n_tokens, offsets)
                    return
                if counts:
                    tokens[position] = n_tokens
                done[position] = at
            except IndexError:
                locked(at, position, data, n_tokens, offsets)
                return
            if attention[0]:
                attend(position, at)

        return complete_one

    def _first_token(self) -> tuple[Callable[..., None], Callable[..., None]]:
        """`first_token`, and of one id at a time that is not questioned."""
        now, given, many = self._clock.now_ns, self._given, self.first_tokens_many
        done, first, keeps = self.done, _memory(self.first), _memory(self.keep)
        logs, counts = self.keep is not None, len(self.tokens) > 0

        def first_token_one(at: int, position: int, data: Buffer | None = None) -> None:
            if not counts:
                return
            try:
                if position < 0 or done[position] or (logs and keeps[position]):
                    many(at, position, data)
                else:
                    first[position] = at
            except IndexError:
                many(at, position, data)

        def first_token(
            ids: Ints, data: Buffer | None = None, offsets: Offsets | None = None, at_ns: Ints | None = None
        ) -> None:
            at: Any = now() if at_ns is None else given(ids, at_ns)
            if type(ids) is int and type(at) is int and offsets is None:
                first_token_one(at, ids, data)
            elif counts:
                many(at, ids, data, offsets)

        return first_token, first_token_one

    def _locked(
        self, at: int, position: int, data: Buffer | None = None, n_tokens: Any = None, offsets: Offsets | None = None
    ) -> None:
        """`complete_one`, in any case."""
        counts = len(self.tokens) > 0
        if offsets is not None or (counts and type(n_tokens) is not int):
            self.complete_many(at, position, data, offsets, n_tokens)
            return
        with self._lock:
            if not 0 <= position < self.count or self.done[position]:
                self.refuse(position)
                return
            if counts:
                self._question_tokens(position, n_tokens)
                self.tokens[position] = n_tokens if n_tokens > 1 else 0
            if self.spool is not None and data is not None and self.keep is not None and self.keep[position]:
                self.spool.add_one(position, data)
            self.done[position] = at
        self.notify()

    def complete_few(self, at: int, positions: list[int], counts: list[int] | None = None) -> None:
        """`complete` of up to `_SMALL` ids whose answers are not logged. counts: of tokens."""
        done, tokens, taken = self.done, self.tokens, 0
        with self._lock:
            for k, i in enumerate(positions):
                if not 0 <= i < self.count or done[i]:
                    self.refuse(i)
                    continue
                if counts is not None:
                    tokens[i] = counts[k] if counts[k] > 1 else 0
                    self._question_tokens(i, counts[k])
                done[i] = at
                taken += 1
            self.answered_at_least[0] += taken
        self.notify()

    def complete_many(
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
                    self.complete_many(when, one, piece, None, count)
            return
        counts = self._counts(rows, n_tokens) if len(self.tokens) else None
        if counts is not None and self.keep is None and len(rows) <= _SMALL and isinstance(at, int):
            self.complete_few(at, rows.tolist(), counts.tolist())
            return
        wanted = None if self.keep is None or self.spool is None or data is None else self.keep[rows]
        with self._columns():
            fresh = self._fresh(rows)
            if counts is not None:
                self._count_tokens(rows[fresh], counts[fresh])
            if wanted is not None and wanted.any():
                self._log(rows, wanted & fresh, data, offsets)  # type: ignore[arg-type]
            self.done_view[rows[fresh]] = at if isinstance(at, int) else at[fresh]
        self.notify()

    def first_tokens_many(
        self, at: int | I64, ids: Ints, data: Buffer | None = None, offsets: Offsets | None = None
    ) -> None:
        """`first_token`, as `complete_many`."""
        rows, _ = self._known(ids, at)
        if rows.size != np.size(ids):
            for one, piece, _, when in _each(ids, data, offsets, None, at):
                if 0 <= one < self.count:
                    self.first_tokens_many(when, one, piece)
            return
        for i in rows[self.done_view[rows] != 0].tolist():
            self.errors.add(f"Attempted to record token latency after sample was completed: id {i}")
        if self.keep is not None and self.spool is not None and data is not None:
            self._log(rows, self.keep[rows], data, offsets, first=True)
        self.first[rows] = at

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
            self._await(position)  # before the look, so that an answer after it wakes us
            if self.done[position] or self.failed:
                break
            if not self._clock.wait(self._wake, timeout_s):
                break
        self._await(-1)
        return bool(self.done[position]) or self.failed

    def _await(self, position: int) -> None:
        with self._lock:
            self.attention[0] += (position >= 0) - (self._waiting >= 0)
            self._waiting = position

    def attend(self, position: int, at: int) -> None:
        """After the answer of one id, taken without the lock: was it the only one, and does somebody wait for it?"""
        with self._lock:
            if self.done[position] != at:  # who held the lock had looked before, and marked after
                self.refuse(position)
        self.notify()

    def notify(self, force: bool = False) -> None:
        """Wake whoever waits for an answer that has come."""
        if not self.attention[0]:
            return
        with self._lock:
            k = self._waiting
            if k < 0 or not (force or self.done[k]):
                return
            self._await(-1)
        with contextlib.suppress(RuntimeError):  # it gave up just now, and waits again
            self._wake.release()

    @contextlib.contextmanager
    def _columns(self) -> Iterator[None]:
        """Look at answers and mark them, of many ids, with nobody between."""
        with self._lock:
            self.attention[0] += 1
            try:
                yield
            finally:
                self.attention[0] -= 1

    def first_missing(self, start: int, stop: int) -> int:
        """The first position in start .. stop - 1 without an answer; stop if there is none."""
        for low in range(start, stop, 65536):
            block = self.done_view[low : min(low + 65536, stop)]
            missing = np.flatnonzero(block == 0)
            if len(missing):
                return low + int(missing[0])
        return stop

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
        """Answers that are neither logged nor counted."""
        if type(ids) is int:
            ids = (ids,)
        if len(ids) > _SMALL:
            self.complete_many(at, ids)
            return
        if type(ids) is np.ndarray:
            ids = ids.tolist()
        if isinstance(at, int):
            self.complete_few(at, ids)
            return
        for one, when in zip(ids, at.tolist(), strict=True):
            self.complete_few(when, [one])

    def _known(self, ids: Ints, at: int | I64) -> tuple[I64, int | I64]:
        """Column positions of known ids, and their times; unknown ids become errors."""
        rows = np.atleast_1d(np.asarray(ids, np.int64))
        known = (rows >= 0) & (rows < self.count)
        if known.all():
            return rows, at
        for i in rows[~known].tolist():
            self.refuse(i)
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
            for i in rows[~fresh].tolist():
                self.refuse(i)
        return fresh

    def _counts(self, rows: I64, n_tokens: Ints | None) -> I64:
        return np.broadcast_to(np.asarray(0 if n_tokens is None else n_tokens, np.int64), rows.shape)

    def _count_tokens(self, rows: I64, counts: I64) -> None:
        strange = counts < 2
        if self.needs_first:
            strange |= self.first[rows] == 0
        for i, n in zip(rows[strange].tolist(), counts[strange].tolist(), strict=True):
            self._question_tokens(i, n)
        self.tokens[rows] = np.where(counts < 2, 0, counts)

    def _question_tokens(self, position: int, n_tokens: int) -> None:
        """Note what is wrong with a sample's tokens, if anything is."""
        if n_tokens < 2:
            self.errors.add(f"{_token_problem(n_tokens)}: id {position}, n_tokens {n_tokens}")
        if self.needs_first and not self.first[position]:
            self.errors.add(f"Attempted to record a sample latency before it's first token latency: id {position}")

    def _log(
        self,
        rows: I64,
        wanted: npt.NDArray[np.bool_],
        data: Buffer,
        offsets: Offsets | None,
        first: bool = False,
    ) -> None:
        """Hand answers or first tokens to the spool. What it cannot keep ends the run."""
        assert self.spool is not None
        try:
            (self.spool.add_first_tokens if first else self.spool.add)(rows, wanted, data, offsets)
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


def _memory(column: npt.NDArray[Any] | None) -> Any:
    """To read and write single elements of, several times as fast as of the array."""
    return None if column is None else memoryview(column)  # type: ignore[arg-type]


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
