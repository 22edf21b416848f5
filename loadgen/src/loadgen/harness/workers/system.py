"""A system under test in a process of its own, so that its Python code cannot delay the load generator's.

Queries and answers travel through rings in shared memory. The time of an answer is read in the child, on the
clock of the run (on Linux `time.perf_counter_ns` is CLOCK_MONOTONIC, one clock for the whole machine; `start`
checks it), so the way back is not part of a latency.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import threading
from array import array
from collections.abc import Callable
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt

from loadgen.contracts import InputError, Ints, Responder, SystemUnderTest
from loadgen.harness.workers.ring import I64, WORD, PeerGone, Reader, Ring, Writer
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
    STOP,
    UNABLE,
    Wanted,
    serve,
    three,
)
from loadgen.recorder import Recorder

_LOOP = 16  # answers up to which a loop beats numpy
_BUSY_S = 0.5  # a thread that takes longer to send one request waits for room


class StartError(RuntimeError):
    """The system did not start in its process."""


class ProcessSystem:
    """`SystemUnderTest` that builds another one in a child process and runs it there.

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
        """Raises StartError, with the child's traceback, if the system does not start."""
        if not isinstance(respond, Recorder):
            raise TypeError(f"{self.name}: its answers bring their times with them, which only a Recorder takes")
        self._child = _Child(self.name, self._factory, self._ring_bytes, respond)
        try:
            self._child.start(self._start_timeout_s)
        except BaseException:  # Ctrl-C too: nobody calls stop() after a start() that raised
            self._child.end(0)
            del self._child
            raise

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
        self._child.end(self._stop_timeout_s)
        del self._child  # and with it the shared memory


def _portable(factory: Callable[[], SystemUnderTest] | str) -> bytes | str:
    """The factory in a form that travels. Raises InputError if it has none."""
    if isinstance(factory, str):
        if not all(factory.partition(":")):
            raise InputError(f'factory {factory!r} is no name: write "module:function"')
        return factory
    try:
        return pickle.dumps(factory)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f'factory {factory!r} cannot be sent to another process ({error}): pass "module:function", '
            "a function at the top of a module, or functools.partial of one"
        ) from error


class _Child:
    """One child process, and the thread that reads its answers."""

    def __init__(self, name: str, factory: bytes | str, ring_bytes: int, recorder: Recorder) -> None:
        self._name, self._recorder = name, recorder
        wanted = Wanted(os.getpid(), len(recorder.tokens) > 0, _kept(recorder))
        self._rings = Ring.make(ring_bytes), Ring.make(ring_bytes)
        # spawn: a fork copies locks that threads of this process hold
        self._process = get_context("spawn").Process(target=serve, args=(name, factory, *self._rings, wanted))
        self._thread = threading.Thread(target=self._receive, name=f"{name} answers", daemon=True)
        self._sending = threading.Lock()  # several threads may issue, the ring has one writer
        self._started = threading.Event()
        self._problem = ""  # why it did not start
        self._expected: tuple[int, ...] = ()  # exit codes that are no failure

    def start(self, timeout_s: float | None) -> None:
        self._began_ns = self._recorder.now_ns()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the child inherits it: see `serve`
        try:
            self._process.start()
            atexit.register(self._process.kill)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._requests = Writer(self._rings[0], self._process)
        self._answers = Reader(self._rings[1], self._process)
        self._thread.start()
        if not self._started.wait(timeout_s):
            raise StartError(f"{self._name} did not start within {timeout_s:g} s: raise start_timeout_s")
        if self._problem:
            raise StartError(self._problem)

    def send(self, record: bytes, *columns: memoryview) -> None:
        """Hand a request to the child; into the void if it has ended."""
        try:
            with self._sending:
                self._requests.put(record)
                for column in columns:
                    self._requests.write(column)
        except PeerGone:
            return  # the thread that reads the answers reports it

    def end(self, timeout_s: float) -> None:
        """Tell the system to stop, wait so long for its process to end, then kill it."""
        process = self._process
        try:
            if timeout_s and process.is_alive() and self._can_hear():
                self._expected = (0,)
                self.send(three(STOP, 0, 0))
                process.join(timeout_s)
                if process.is_alive():
                    self._recorder.fail(f"{self._name} took more than {timeout_s:g} s to stop: its process was killed")
        finally:
            self._kill()

    def _can_hear(self) -> bool:
        """False where Ctrl-C cut a request in two, or where requests wait for room because none is read."""
        if not self._sending.acquire(timeout=_BUSY_S):
            return False
        try:
            return not self._requests.torn and self._requests.room() > len(three(STOP, 0, 0))
        finally:
            self._sending.release()

    def _kill(self) -> None:
        if self._process.is_alive():
            self._expected = (0, -signal.SIGKILL)
            self._process.kill()
            self._process.join()
        atexit.unregister(self._process.kill)
        if self._thread.is_alive():
            self._thread.join()

    def _receive(self) -> None:
        """Take answers until the process ends."""
        try:
            while True:
                self._next()
        except PeerGone:
            self._ended(self._process.exitcode)
        except Exception as error:  # an answer that the recorder cannot take must not leave the run waiting
            self._recorder.fail(f"an answer of {self._name} cannot be recorded: {type(error).__name__}: {error}")
        self._started.set()

    def _ended(self, code: int | None) -> None:
        said = f"the process of {self._name} ended with exit code {code}"
        if code is not None and code < 0:
            said += f" ({signal.Signals(-code).name})"
        if not self._started.is_set():
            self._problem = (
                f"{said} before it was ready: see what it printed. A script that starts a process must do so "
                'below `if __name__ == "__main__":`'
            )
        elif code not in self._expected:
            self._recorder.fail(f"{said} during the test: see what it printed, and whether memory ran out")

    def _next(self) -> None:
        """Take the one-sample records that lie ready together, or one record of another kind."""
        words = self._answers.ready()
        kinds = words[: len(words) // 3 * 3 : 3]
        others = np.flatnonzero(kinds != DONE)
        count = int(others[0]) if len(others) else len(kinds)
        if count:
            _record(self._recorder, words[: 3 * count].reshape(-1, 3))
            self._answers.skip(3 * count)
            return
        kind, at, size = self._answers.take(3).tolist()
        if kind == DONE:  # cut by the end of the ring
            _record(self._recorder, np.array([[kind, at, size]]))
        elif kind in (COMPLETE, FIRST):
            self._answer(kind, at, size)
        elif kind == FAIL:
            self._recorder.fail(self._text(size))
        else:
            self._problem = self._text(size) if kind == UNABLE else self._clock_problem(at)
            self._started.set()

    def _answer(self, kind: int, at: int, count: int) -> None:
        n_tokens, n_offsets, n_bytes = self._answers.take(3).tolist()
        ids = self._answers.take(count)
        tokens = None if n_tokens == NONE else self._answers.take(n_tokens)
        offsets = None if n_offsets == NONE else self._answers.take(n_offsets)
        data = None if n_bytes == NONE else self._bytes(n_bytes)
        if kind == COMPLETE:
            self._recorder.complete_at(at, ids, data, offsets, tokens)
        else:
            self._recorder.first_token_at(at, ids, data, offsets)

    def _bytes(self, length: int) -> memoryview:
        words = self._answers.take(-(-length // WORD))
        return memoryview(words.tobytes())[:length]

    def _text(self, length: int) -> str:
        return str(self._bytes(length), "utf-8", "replace")

    def _clock_problem(self, at: int) -> str:
        """Empty if the child's clock stands where the run's does."""
        now = self._recorder.now_ns()
        if self._began_ns <= at <= now:
            return ""
        return f"the clock in the process of {self._name} says {at} ns, the run's {now} ns: run with the real clock"


def _kept(recorder: Recorder) -> npt.NDArray[np.bool_] | None:
    if recorder.times_only:
        return None
    keep = np.fromiter(map(recorder.keeps, range(recorder.count)), bool, recorder.count)
    return keep if keep.any() else None


def _record(recorder: Recorder, rows: I64) -> None:
    """Completions of one sample each in a run that logs no answers: rows of (kind, time, id)."""
    times, ids = rows[:, 1], rows[:, 2]
    if len(rows) > _LOOP and ids.min() >= 0 and ids.max() < recorder.count and len(np.unique(ids)) == len(ids):
        if not recorder.done_view[ids].any():
            recorder.done_view[ids] = times
            recorder.notify()
            return
    done, count = recorder.done, recorder.count
    for at, i in rows[:, 1:].tolist():
        if 0 <= i < count and not done[i]:
            done[i] = at
        else:
            recorder.refuse(i)
    recorder.notify()
