"""A `Backend` in a process of its own, for runtimes that keep Python's global lock. Linux.

Batches and outputs travel as pickles of protocol 5, their arrays beside them, through rings in shared memory:
the next batch is copied while the child computes.
"""

from __future__ import annotations

import atexit
import contextlib
import pickle
import signal
import threading
import traceback
from array import array
from concurrent.futures import Future
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any

import numpy as np

from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.workers.loading import load_here
from loadgen.harness.workers.ring import WORD, PeerGone, Reader, Ring, Writer

_LOADING = 0  # the number of the answer that says that the model is loaded; batches count from 1
_SHORT = 1000  # bytes, more than a message without arrays takes
_CLOSE_S = 10.0  # how long a child may take to close its backend before it is killed


class WorkerError(RuntimeError):
    """A worker's process failed."""


class ProcessBackend:
    """See `loadgen.contracts.Backend`. Its arrays arrive as writable copies.

    dotted: the "module:Class" of the backend that the child builds. ring_bytes: shared memory each way, taken as
    it is used; a larger batch fits, but is copied while the child reads.
    """

    def __init__(self, dotted: str, options: BackendOptions, name: str, ring_bytes: int = 64 << 20) -> None:
        self.name, self.device_name = name, options.device
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._count = _LOADING
        self._gone = ""  # why no answer will come any more
        requests, answers = Ring.make(ring_bytes), Ring.make(ring_bytes)
        # spawn: a fork copies locks that threads of this process hold
        arguments = (dotted, options, requests, answers)
        self._process = get_context("spawn").Process(target=serve, args=arguments, name=name)
        self._rings = requests, answers
        self._thread: threading.Thread | None = None

    def load(self) -> None:
        """Start the child and wait for its model. Raises InputError as the backend does, WorkerError if it dies."""
        loading: Future[str] = Future()
        self._waiting[_LOADING] = loading
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is ours to handle
        try:
            self._process.start()
            atexit.register(self._process.kill)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._writer = Writer(self._rings[0], self._process)
        reader = Reader(self._rings[1], self._process)
        self._thread = threading.Thread(target=self._receive, args=(reader,), name=self.name, daemon=True)
        self._thread.start()
        self.device_name = loading.result()

    def submit(self, batch: Any) -> Future[Any]:
        """Raises WorkerError, at once or in the future, if the child has ended."""
        future: Future[Any] = Future()
        with self._lock:
            if self._gone:
                raise WorkerError(self._gone)
            self._count += 1
            number = self._count
            self._waiting[number] = future
        with contextlib.suppress(PeerGone):  # the thread that receives sets the exception
            _send(self._writer, (number, batch))
        return future

    def close(self) -> None:
        """A child that does not end in time is killed."""
        if self._thread is None:
            return
        if self._process.is_alive() and not self._writer.torn and self._writer.room() > _SHORT:
            _send(self._writer, None)
            self._process.join(_CLOSE_S)
        self._process.kill()
        self._process.join()
        atexit.unregister(self._process.kill)
        self._thread.join()

    def _receive(self, reader: Reader) -> None:
        """Take answers until the process ends."""
        try:
            while True:
                number, is_good, found = _receive(reader)
                with self._lock:
                    future = self._waiting.pop(number)
                if is_good:
                    future.set_result(found)
                else:
                    is_input, text = found
                    future.set_exception(InputError(text) if is_input else WorkerError(f"{self.name}: {text}"))
        except PeerGone:
            self._process.join()
            self._end(_ending(self.name, self._process.exitcode))
        except Exception as error:  # outputs that cannot be read here must not leave the run waiting
            self._end(f"an answer of {self.name} cannot be read: {type(error).__name__}: {error}")

    def _end(self, why: str) -> None:
        with self._lock:
            self._gone = why
            waiting = list(self._waiting.values())
        for future in waiting:
            future.set_exception(WorkerError(why))


def _ending(name: str, code: int | None) -> str:
    said = f"the process of {name} ended with exit code {code}"
    if code is not None and code < 0:
        said += f" ({signal.Signals(-code).name})"
    return f"{said}: see what it printed, and whether memory ran out"


def _send(writer: Writer, message: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    pieces = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    writer.write(array("q", [len(pieces), *(piece.nbytes for piece in pieces)]).tobytes())
    for piece in pieces:
        writer.write(piece)


def _receive(reader: Reader) -> Any:
    count = int(reader.take(1)[0])
    sizes = reader.take(count).tolist()
    head, *buffers = [reader.take(-(-size // WORD)).view(np.uint8)[:size] for size in sizes]
    return pickle.loads(head.tobytes(), buffers=buffers)


def serve(dotted: str, options: BackendOptions, requests: Ring, answers: Ring) -> None:
    """The child's life; it ends with the parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent: Any = parent_process()
    reader, replies = Reader(requests, parent), _Replies(Writer(answers, parent))
    try:
        backend = load_here(dotted, options)
    except Exception as error:  # whatever a vendor's code raises must arrive in words
        is_input = isinstance(error, InputError)
        text = str(error) if is_input else f"the model was not loaded:\n{traceback.format_exc()}"
        replies.send((_LOADING, False, (is_input, text)))
        return
    replies.send((_LOADING, True, str(getattr(backend, "device_name", options.device))))
    try:
        while (request := _receive(reader)) is not None:
            number, batch = request
            replies.of(number, partial(backend.submit, batch))
    except PeerGone:
        pass
    finally:
        backend.close()


class _Replies:
    """The child's answers; futures may be done on any thread."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self._lock = writer, threading.Lock()

    def send(self, message: Any) -> None:
        with self._lock:
            _send(self._writer, message)

    def of(self, number: int, submit: Any) -> None:
        """Answer when the future is done; a prediction that fails is an answer too."""
        try:
            future: Future[Any] = submit()
        except Exception as error:  # as above
            self._failed(number, error)
        else:
            future.add_done_callback(partial(self._done, number))

    def _done(self, number: int, future: Future[Any]) -> None:
        try:
            self.send((number, True, future.result()))
        except PeerGone:
            pass  # the loop that reads notices it
        except Exception as error:  # the prediction's, or its outputs cannot travel
            self._failed(number, error)

    def _failed(self, number: int, error: Exception) -> None:
        self.send((number, False, (False, f"{type(error).__name__}: {error}")))
