"""A system under test in a process of its own, so that its Python code cannot delay the load generator's.

Queries and answers travel through rings in shared memory. The time of an answer is read in the child, on the
clock of the run (on Linux `time.perf_counter_ns` is CLOCK_MONOTONIC, one clock for the whole machine; `start`
checks it), so the way back is not part of a latency.
"""

from __future__ import annotations

import pickle
import traceback
from array import array
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from loadgen.clock import RealClock
from loadgen.contracts import InputError, Ints, Responder, SystemUnderTest
from loadgen.harness.workers.child import Child
from loadgen.harness.workers.failure import WorkerError
from loadgen.harness.workers.ring import I64, WORD, Reader
from loadgen.harness.workers.system_child import (
    ARRAY,
    COMPLETE,
    DONE,
    FAIL,
    FEW,
    FIRST,
    FLUSH,
    NONE,
    ONE,
    READY,
    STOP,
    serve,
    three,
)

_LOOP = 16  # answers up to which a call for each beats numpy


class ProcessSystem:
    """`SystemUnderTest` that builds another one in a child process and runs it there. The run needs the real clock.

    factory: makes the system, in the child. A function or class at the top of a module, `functools.partial`
    of one, or "module:function". The sample library stays in this process: the system brings its own samples.
    Each `start` makes a new child and waits until the system in it has started.
    ring_bytes: shared memory each way. A child that stalls delays no query until it is full: a Server query
    takes 40 bytes. start_timeout_s: None waits as long as the child lives. stop_timeout_s: how long the child
    may take to end before it is killed.
    """

    def __init__(
        self,
        factory: Callable[[], SystemUnderTest] | str,
        *,
        name: str,
        ring_bytes: int = 16 << 20,
        start_timeout_s: float | None = None,
        stop_timeout_s: float = 10.0,
    ) -> None:
        self.name = name
        self._factory = _portable(factory)
        self._ring_bytes = ring_bytes
        self._start_timeout_s, self._stop_timeout_s = start_timeout_s, stop_timeout_s

    def start(self, respond: Responder) -> None:
        """Raises InputError as the system's start, or WorkerError with the child's traceback as its cause."""
        child: Child[None] = Child(self.name, self._ring_bytes, serve, self.name, self._factory, respond.keep)
        answers = _Answers(self.name, respond, child.ready)
        child.start(answers.take, answers.ended, self._start_timeout_s)
        self._child, self._respond = child, respond

    def issue(self, ids: Ints, indices: Ints) -> None:
        """See `contracts.SystemUnderTest`."""
        if type(ids) is int:
            self._child.send(three(ONE, ids, indices))
        elif isinstance(ids, np.ndarray):
            columns = (np.ascontiguousarray(column, np.int64).data for column in (ids, indices))
            self._child.send(three(ARRAY, len(ids), 0), *columns)
        else:
            self._child.send(array("q", (FEW, len(ids), 0, *ids, *indices)).tobytes())  # type: ignore[arg-type, misc]

    def flush(self) -> None:
        """Passed on; does not wait."""
        self._child.send(three(FLUSH, 0, 0))

    def stop(self) -> None:
        """See `contracts.SystemUnderTest`. A child that does not end is killed, and the run INVALID."""
        seconds = self._stop_timeout_s
        if not self._child.end(seconds, three(STOP, 0, 0)):
            self._respond.fail(f"{self.name} took more than {seconds:g} s to stop: its process was killed")
        del self._child, self._respond  # and with the child the shared memory


def _portable(factory: Callable[[], SystemUnderTest] | str) -> bytes | str:
    """The factory in a form that travels. Raises InputError if it has none."""
    if isinstance(factory, str):
        if not all(factory.partition(":")):
            raise InputError(f'factory {factory!r} is not a name: write "module:function"')
        return factory
    try:
        return pickle.dumps(factory)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f'factory {factory!r} cannot be sent to another process ({error}): pass "module:function", '
            "a function at the top of a module, or functools.partial of one"
        ) from error


class _Answers:
    """What the child says, passed on to the run."""

    def __init__(self, name: str, respond: Responder, ready: Future[None]) -> None:
        self._name, self._respond, self._ready = name, respond, ready
        self._began_ns = RealClock.now_ns()

    def take(self, reader: Reader) -> None:
        """The one-sample records that lie ready together, or one record of another kind."""
        words = reader.ready()
        kinds = words[: len(words) // 3 * 3 : 3]
        others = np.flatnonzero(kinds != DONE)
        count = int(others[0]) if len(others) else len(kinds)
        if count:
            self._done(words[: 3 * count].reshape(-1, 3))
            reader.skip(3 * count)
        else:
            self._other(reader, *reader.take(3).tolist())

    def _done(self, rows: I64) -> None:
        """Rows of kind, time, id."""
        if len(rows) <= _LOOP:
            for _, at, i in rows.tolist():
                self._respond.complete(i, at_ns=at)
        else:
            self._respond.complete(rows[:, 2].copy(), at_ns=rows[:, 1].copy())

    def ended(self, error: WorkerError | None) -> None:
        """The process has ended; with an error if nobody asked it to."""
        if error is not None:
            self._respond.fail(str(error), "".join(traceback.format_exception(error)) if error.__cause__ else "")

    def _other(self, reader: Reader, kind: int, first: int, second: int) -> None:
        if kind == DONE:  # cut by the end of the ring
            self._respond.complete(second, at_ns=first)
        elif kind in (COMPLETE, FIRST):
            self._several(reader, kind, first, second)
        elif kind == READY:
            self._started(first)
        else:
            found = pickle.loads(_bytes(reader, first))
            if kind == FAIL:
                self._respond.fail(*found)
            else:
                self._ready.set_exception(found.error(f"{self._name} did not start in its process"))

    def _started(self, at: int) -> None:
        """Its times can be used if its clock stands where ours does."""
        now = RealClock.now_ns()
        if self._began_ns <= at <= now:
            self._ready.set_result(None)
        else:
            said = f"the clock in the process of {self._name} says {at} ns, the one here {now} ns"
            self._ready.set_exception(WorkerError(f"{said}: run the system in this process"))

    def _several(self, reader: Reader, kind: int, n_ids: int, n_times: int) -> None:
        n_tokens, n_offsets, n_bytes = reader.take(3).tolist()
        ids, times = reader.take(n_ids), reader.take(n_times)
        tokens = None if n_tokens == NONE else reader.take(n_tokens)
        offsets = None if n_offsets == NONE else reader.take(n_offsets)
        data = None if n_bytes == NONE else _bytes(reader, n_bytes)
        at: int | I64 = int(times[0]) if n_times == 1 else times
        if kind == COMPLETE:
            self._respond.complete(ids, data, offsets, tokens, at)
        else:
            self._respond.first_token(ids, data, offsets, at)


def _bytes(reader: Reader, length: int) -> memoryview:
    words = reader.take(-(-length // WORD))
    return memoryview(words.tobytes())[:length]
