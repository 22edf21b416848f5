"""Completions in columns: what the system answered, and when. Thread-safe, append-only.

Of two threads that answer one sample at once, one is refused: answers of many ids, and those that are logged, take a
lock. An answer of one id needs none where the interpreter has a lock of its own and, as CPython since 3.11, changes
threads at calls and backward jumps only: what stands between such points is done at once. That a lock is held
meanwhile (`attention`) it sees when it is done, and looks again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen import each_query
from loadgen.attention import Attention
from loadgen.clock import Clock
from loadgen.contracts import I64, Buffer, Ints, Offsets
from loadgen.forms import SMALL, counts_of, each, times_of, token_problem
from loadgen.notes import Errors
from loadgen.spool import Spool, SpoolError

_AT_ONCE = 1 << 18  # ids up to which what a look at them takes is no memory worth speaking of


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
        self._began_ns = clock.now_ns()
        self._attention = Attention(self.done, clock, self.refuse)
        self.lock, self.notify, self.attend = self._attention.lock, self._attention.notify, self._attention.attend
        self.attend_each, self.looks = self._attention.attend_each, self._attention.looks
        self.answered_at_least = [0]
        """A count of answered samples, to spare MultiStream a look at each: only calls with few ids add to it."""
        self.attention = self._attention.wanted
        """Not 0: whoever has marked an answer without the lock calls `attend`."""
        self.complete_one, self.complete_few = each_query.one(self), each_query.few(self)
        self.complete = each_query.timed(self) if self.times_only else each_query.full(self)
        self.first_token, self.first_token_one = each_query.first_token(self)

    def locked(
        self, at: int, position: int, data: Buffer | None = None, n_tokens: Any = None, offsets: Offsets | None = None
    ) -> None:
        """`complete_one`, in any case."""
        counts = len(self.tokens) > 0
        if offsets is not None or (counts and type(n_tokens) is not int):
            self.complete_many(at, position, data, offsets, n_tokens)
            return
        with self.lock:
            if not 0 <= position < self.count or self.done[position]:
                self.refuse(position)
                return
            if counts:
                self.question_tokens(position, n_tokens)
                self.tokens[position] = n_tokens if n_tokens > 1 else 0
            if self.spool is not None and data is not None and self.keep is not None and self.keep[position]:
                self.spool.add_one(position, data)
            self.done[position] = at
        self.notify()

    def few_locked(self, at: int, positions: Sequence[int], counts: Sequence[int] | None) -> None:
        """`complete_few`, in any case."""
        with self.lock:
            for k, i in enumerate(positions):
                if not 0 <= i < self.count or self.done[i]:
                    self.refuse(i)
                    continue
                if counts is not None:
                    self.tokens[i] = counts[k] if counts[k] > 1 else 0
                    self.question_tokens(i, counts[k])
                self.done[i] = at
                self.answered_at_least[0] += 1
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
        rows = self._known(ids)
        if rows.size != np.size(ids):
            for one, piece, count, when in each(ids, data, offsets, n_tokens, at):
                if 0 <= one < self.count:
                    self.complete_many(when, one, piece, None, count)
            return
        counts = counts_of(rows, n_tokens) if len(self.tokens) else None
        if len(rows) > _AT_ONCE and (offsets is None or len(offsets) == len(rows) + 1):
            for low in range(0, len(rows), _AT_ONCE):
                some, ends = slice(low, low + _AT_ONCE), slice(low, low + _AT_ONCE + 1)
                part = at if isinstance(at, int) else at[some]
                cut = None if offsets is None else offsets[ends]
                self.complete_many(part, rows[some], data, cut, None if counts is None else counts[some])
            return
        wanted = None if self.keep is None or self.spool is None or data is None else self.keep[rows]
        with self._attention.many():
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
        rows = self._known(ids)
        if rows.size != np.size(ids):
            for one, piece, _, when in each(ids, data, offsets, None, at):
                if 0 <= one < self.count:
                    self.first_tokens_many(when, one, piece)
            return
        late, again = self.done_view[rows] != 0, self.first[rows] != 0
        for i in rows[late].tolist():
            self.errors.add(f"Attempted to record token latency after sample was completed: id {i}")
        for i in rows[again & ~late].tolist():
            self.errors.add(f"Attempted to complete a sample twice: id {i}, its first token")
        fresh = ~late & ~again
        if self.keep is not None and self.spool is not None and data is not None:
            self._log(rows, self.keep[rows] & fresh, data, offsets, first=True)
        self.first[rows[fresh]] = at if isinstance(at, int) else at[fresh]

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
            self._attention.wait_for(position)  # before the look, so that an answer after it wakes us
            if self.done[position] or self.failed:
                break
            if not self._attention.wait(timeout_s):
                break
        self._attention.wait_for(-1)
        return bool(self.done[position]) or self.failed

    def first_missing(self, start: int, stop: int) -> int:
        """The first position in start .. stop - 1 without an answer; stop if there is none."""
        for low in range(start, stop, 65536):
            block = self.done_view[low : min(low + 65536, stop)]
            missing = np.flatnonzero(block == 0)
            if len(missing):
                return low + int(missing[0])
        return stop

    def given(self, ids: Ints, at_ns: Ints) -> int | I64:
        """See `times_of`; what is wrong fails the run."""
        now, began = self.now_ns(), self._began_ns
        if type(at_ns) is int and began <= at_ns <= now:
            return at_ns
        times, complaint = times_of(ids, at_ns, began, now)
        if complaint:
            self.fail(complaint)
        return times

    def many(self, ids: Any, at: int | I64) -> None:
        """Answers that are neither logged nor counted."""
        if type(ids) is int:
            ids = (ids,)
        if len(ids) > SMALL:
            self.complete_many(at, ids)
            return
        if type(ids) is np.ndarray:
            ids = ids.tolist()
        if isinstance(at, int):
            self.complete_few(at, ids)
            return
        for one, when in zip(ids, at.tolist(), strict=True):
            self.complete_few(when, [one])

    def _known(self, ids: Ints) -> I64:
        """Column positions of known ids; unknown ids become errors."""
        rows = np.atleast_1d(np.asarray(ids, np.int64))
        known = (rows >= 0) & (rows < self.count)
        if known.all():
            return rows
        for i in rows[~known].tolist():
            self.refuse(i)
        return rows[known]

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

    def _count_tokens(self, rows: I64, counts: I64) -> None:
        strange = counts < 2
        if self.needs_first:
            strange |= self.first[rows] == 0
        for i, n in zip(rows[strange].tolist(), counts[strange].tolist(), strict=True):
            self.question_tokens(i, n)
        self.tokens[rows] = np.where(counts < 2, 0, counts)

    def question_tokens(self, position: int, n_tokens: int) -> None:
        """Note what is wrong with a sample's tokens, if anything is."""
        if n_tokens < 2:
            self.errors.add(f"{token_problem(n_tokens)}: id {position}, n_tokens {n_tokens}")
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
