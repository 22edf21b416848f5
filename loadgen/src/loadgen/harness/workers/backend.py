"""A `Backend` in a process of its own, for runtimes that keep Python's global lock. Linux.

Batches and outputs travel through rings in shared memory: the next batch is copied while the child computes.
"""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future
from typing import Generic, TypeVar

from loadgen.contracts import B, BackendOptions, Loaded, O
from loadgen.harness.workers.backend_child import LOADING, serve
from loadgen.harness.workers.child import Child
from loadgen.harness.workers.failure import Failure, WorkerError
from loadgen.harness.workers.messages import packed, receive
from loadgen.harness.workers.ring import Reader

_CLOSE_S = 10.0  # how long a child may take to close its backend before it is killed

T = TypeVar("T")


class ProcessBackend(Generic[B, O]):
    """See `loadgen.contracts.Backend`. Its arrays arrive as writable copies.

    dotted: the "module:Class" of the backend that the child builds; install: see `loading.package_named`.
    ring_bytes: shared memory each way; a larger batch fits, but is copied while the child reads.
    """

    def __init__(
        self, dotted: str, options: BackendOptions, name: str, *, install: str = "", ring_bytes: int = 64 << 20
    ) -> None:
        self.name = name
        self._child: Child[Loaded] = Child(name, ring_bytes, serve, dotted, options, install)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[O]] = {}
        self._numbers = itertools.count(LOADING + 1)
        self._gone: WorkerError | None = None  # why no answer will come any more

    def load(self) -> Loaded:
        """Start the child and wait for its model. Raises InputError as the backend does, else WorkerError."""
        return self._child.start(self._take, self._ended)

    def submit(self, batch: B) -> Future[O]:
        """Raises WorkerError, at once or in the future, if the child has ended."""
        future: Future[O] = Future()
        number = next(self._numbers)
        sizes, pieces = packed((number, batch))
        with self._lock:
            if self._gone:
                raise WorkerError(str(self._gone)) from self._gone.__cause__
            self._waiting[number] = future
        self._child.send(sizes, *pieces)
        return future

    def close(self) -> None:
        """A child that does not end in time is killed."""
        sizes, pieces = packed(None)
        self._child.end(_CLOSE_S, sizes, *pieces)

    def _take(self, reader: Reader) -> None:
        number, found = receive(reader)
        if number == LOADING:
            _settle(self._child.ready, found, self.name)
            return
        with self._lock:
            future = self._waiting.pop(number)
        _settle(future, found, self.name)

    def _ended(self, error: WorkerError | None) -> None:
        with self._lock:
            self._gone = error or WorkerError(f"{self.name} is closed")
            waiting = list(self._waiting.values())
        for future in waiting:
            future.set_exception(self._gone)


def _settle(future: Future[T], found: T | Failure, name: str) -> None:
    if isinstance(found, Failure):
        future.set_exception(found.error(name))
    else:
        future.set_result(found)
