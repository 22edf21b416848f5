"""A process between two rings, both halves: `Child` starts and ends it from here, `_live` is its life. Linux."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from multiprocessing import get_context, parent_process
from typing import Generic, TypeVar

from loadgen.harness.workers.failure import WorkerError
from loadgen.harness.workers.ring import PeerGone, Reader, Ring, Writer

R = TypeVar("R")

_BUSY_S = 0.5  # a thread that takes longer to send one request waits for room
_PARENT_LOOK_S = 0.25


class Child(Generic[R]):
    """One child process, and the thread of this one that reads its answers.

    serve: what the child does, as `serve(requests, answers, *arguments)`: a function at the top of a module.
    ring_bytes: shared memory each way, taken as it is used. R: what the child says first, once it is ready.
    """

    def __init__(self, name: str, ring_bytes: int, serve: Callable[..., None], *arguments: object) -> None:
        self.name = name
        self.ready: Future[R] = Future()
        """Whoever reads the answers sets it to the first."""
        self._rings = Ring.make(ring_bytes), Ring.make(ring_bytes)
        # spawn: a fork copies locks that threads of this process hold
        self._process = get_context("spawn").Process(target=_live, args=(serve, *self._rings, arguments), name=name)
        self._thread: threading.Thread | None = None
        self._sending = threading.Lock()  # several threads may send, the ring has one writer
        self._expected: tuple[int, ...] = ()  # exit codes that do not mean failure

    def start(
        self,
        take: Callable[[Reader], None],
        ended: Callable[[WorkerError | None], None],
        timeout_s: float | None = None,
    ) -> R:
        """Start the process and wait until it is ready. Raises WorkerError, or what `ready` was set to raise; the
        process has ended then.

        take: reads one answer or several; called by a thread of this object until the process ends, and by no other.
        ended: called by that thread when a process that was ready has ended; None: as it was asked to.
        """
        try:
            self._launch()
            self._thread = threading.Thread(
                target=self._read, args=(take, ended), name=f"{self.name} answers", daemon=True
            )
            self._thread.start()
            return self.ready.result(timeout_s)
        except FutureTimeoutError:
            self._kill()
            raise WorkerError(f"{self.name} did not start within {timeout_s:g} s: allow it more time time") from None
        except BaseException:  # Ctrl-C too
            self._kill()
            raise

    def send(self, record: bytes, *columns: memoryview) -> None:
        """Hand a request to the child, `record` of whole words; into the void if it has ended."""
        try:
            with self._sending:
                self._requests.put(record)
                for column in columns:
                    self._requests.write(column)
        except PeerGone:
            return  # the thread that reads the answers reports it

    def end(self, timeout_s: float, record: bytes, *columns: memoryview) -> bool:
        """Send this last request, wait so long for the process to end, then kill it.

        False if it was killed although it could hear: it took too long. With no time at all it is killed at once.
        """
        process, was_late = self._process, False
        try:
            if timeout_s and process.is_alive() and self._can_hear(len(record) + sum(c.nbytes for c in columns)):
                self._expected = (0,)
                self.send(record, *columns)
                process.join(timeout_s)
                was_late = process.is_alive()
        finally:
            self._kill()
        return not was_late

    def _launch(self) -> None:
        with _without_interrupts():
            self._process.start()
            atexit.register(self._process.kill)
        self._requests = Writer(self._rings[0], self._process)
        self._answers = Reader(self._rings[1], self._process)

    def _can_hear(self, size: int) -> bool:
        """False where Ctrl-C cut a request in two, or where requests wait for room because none is read."""
        if not self._sending.acquire(timeout=_BUSY_S):
            return False
        try:
            return not self._requests.torn and self._requests.room() > size
        finally:
            self._sending.release()

    def _kill(self) -> None:
        if self._process.is_alive():
            self._expected = (0, -signal.SIGKILL)
            self._process.kill()
            self._process.join()
        atexit.unregister(self._process.kill)
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()

    def _read(self, take: Callable[[Reader], None], ended: Callable[[WorkerError | None], None]) -> None:
        """Take answers until the process ends, or until one cannot be taken: that must not leave a run waiting."""
        error: WorkerError | None
        try:
            while True:
                take(self._answers)
        except PeerGone:
            error = self._ending(self._process.exitcode)
        except Exception as found:
            error = WorkerError(f"an answer of {self.name} cannot be read: {type(found).__name__}: {found}")
            error.__cause__ = found
        if not self.ready.done():
            self.ready.set_exception(error or WorkerError(f"the process of {self.name} was killed"))
        elif self.ready.exception() is None:
            ended(error)

    def _ending(self, code: int | None) -> WorkerError | None:
        if code in self._expected:
            return None
        said = f"the process of {self.name} ended with exit code {code}"
        if code is not None and code < 0:
            said += f" ({signal.Signals(-code).name})"
        advice = "see what it printed, and whether memory ran out"
        if self.ready.done():
            return WorkerError(f"{said}: {advice}")
        return WorkerError(
            f"{said} before it was ready: {advice}. A script that starts a process must do so below "
            '`if __name__ == "__main__":`'
        )


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started inside inherits that SIGINT is blocked, until `_live` ignores it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _live(serve: Callable[..., None], requests: Ring, answers: Ring, arguments: tuple[object, ...]) -> None:
    """The child's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.pid,), name="parent watch", daemon=True).start()
    serve(Reader(requests), Writer(answers), *arguments)


def _follow(parent: int | None) -> None:
    """End with the parent, however that ends."""
    while os.getppid() == parent:
        time.sleep(_PARENT_LOOK_S)
    os._exit(1)
