"""The child's half of `loadgen.harness.workers.system`: builds the system, hands it requests, sends its answers."""

from __future__ import annotations

import gc
import importlib
import pickle
import struct
import threading
import traceback
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from loadgen.clock import RealClock
from loadgen.contracts import Buffer, Ints, Offsets, SystemUnderTest
from loadgen.harness.workers.failure import Failure
from loadgen.harness.workers.ring import I64, Reader, Writer

# Requests are three words: kind, id or count, index. Behind FEW and ARRAY follow ids and indices.
ONE, FEW, ARRAY, FLUSH, STOP = range(5)
# Answers begin with three words. DONE: kind, time in ns, id. COMPLETE and FIRST: kind, the numbers of ids and of times
# (1 or one each), then those of tokens, offsets and bytes, NONE where there are none, then all of them in this order.
# READY: kind, time, 0. FAIL and UNABLE: kind, bytes, 0, then a pickle: (message, details), a `Failure`.
DONE, COMPLETE, FIRST, FAIL, READY, UNABLE = range(10, 16)
NONE = -1

three = struct.Struct("=3q").pack


def serve(
    requests: Reader, answers: Writer, name: str, factory: bytes | str, keep: npt.NDArray[np.bool_] | None
) -> None:
    """What the child does (see `child.Child`). factory: a pickled callable or "module:function"."""
    respond = Sender(answers, keep)
    try:
        system = _built(factory)
        system.start(respond)
    except Exception as error:  # whatever a vendor's code raises must arrive
        respond.send(UNABLE, Failure.of(error))
        return
    respond.ready()
    _quiet_gc()
    while _obey(name, system, requests, respond):
        pass


def _quiet_gc() -> None:
    """What a run does in its own process (`loadgen.execute.quiet_gc`), without the time to import a run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)


def _built(factory: bytes | str) -> SystemUnderTest:
    if isinstance(factory, bytes):
        make: Callable[[], SystemUnderTest] = pickle.loads(factory)
    else:
        module, _, function = factory.partition(":")
        make = getattr(importlib.import_module(module), function)
    return make()


def _obey(name: str, system: SystemUnderTest, requests: Reader, respond: Sender) -> bool:
    """Hand requests on until told to stop, or until one raises: True then, for the next."""
    what = "issue"
    try:
        while True:
            kind, count, index = requests.take(3).tolist()
            if kind == ONE:
                system.issue(count, index)
            elif kind == FEW:
                ids, indices = requests.take(2 * count).reshape(2, -1).tolist()
                system.issue(ids, indices)
            elif kind == ARRAY:
                system.issue(requests.take(count), requests.take(count))
            elif kind == FLUSH:
                what = "flush"
                system.flush()
                what = "issue"
            else:
                what = "stop"
                system.stop()
                return False
    except Exception as error:  # as above
        respond.fail(f"{name}.{what}() raised {type(error).__name__}: {error}", traceback.format_exc())
    return what != "stop"


class Sender:
    """The system's `Responder`. Reads the clock on entry; sends bytes only where an answer is logged."""

    def __init__(self, answers: Writer, keep: npt.NDArray[np.bool_] | None) -> None:
        self.keep = keep
        self._answers = answers
        self._lock = threading.Lock()  # any thread answers, the ring has one writer

    def complete(
        self,
        ids: Ints,
        data: Buffer | None = None,
        offsets: Offsets | None = None,
        n_tokens: Ints | None = None,
        at_ns: Ints | None = None,
    ) -> None:
        """See `contracts.Responder`."""
        at = RealClock.now_ns() if at_ns is None else at_ns
        if type(ids) is int and type(at) is int and n_tokens is None and (self.keep is None or data is None):
            record = three(DONE, at, ids)
            with self._lock:
                self._answers.put(record)
        else:
            self._send_answer(COMPLETE, at, ids, n_tokens, data, offsets)

    def first_token(
        self, ids: Ints, data: Buffer | None = None, offsets: Offsets | None = None, at_ns: Ints | None = None
    ) -> None:
        """See `contracts.Responder`."""
        self._send_answer(FIRST, RealClock.now_ns() if at_ns is None else at_ns, ids, None, data, offsets)

    def fail(self, message: str, details: str = "") -> None:
        """See `contracts.Responder`."""
        self.send(FAIL, (message, details))

    def ready(self) -> None:
        """The system has started."""
        with self._lock:
            self._answers.put(three(READY, RealClock.now_ns(), 0))

    def send(self, kind: int, message: object) -> None:
        """A record whose body is a pickle."""
        body = pickle.dumps(message)
        with self._lock:
            self._answers.write(three(kind, len(body), 0) + body)

    def _send_answer(
        self, kind: int, at: Ints, ids: Ints, n_tokens: Ints | None, data: Buffer | None, offsets: Offsets | None
    ) -> None:
        rows, times = _words(ids), _words(at)
        if len(times) not in (1, len(rows)):
            raise ValueError(f"{len(rows)} answers came with {len(times)} times: pass one, or one for each")
        tokens = None if n_tokens is None else _words(np.broadcast_to(np.asarray(n_tokens), rows.shape))
        logged = data is not None and self._keeps(rows)
        bounds = _words(offsets) if logged and offsets is not None else None
        flat = _flat(data) if logged and data is not None else None
        lengths = [NONE if part is None else len(part) for part in (tokens, bounds, flat)]
        head = np.array([kind, len(rows), len(times), *lengths])
        columns = np.concatenate([part for part in (head, rows, times, tokens, bounds) if part is not None])
        with self._lock:
            self._answers.write(columns.data)
            if flat is not None:
                self._answers.write(flat)

    def _keeps(self, rows: I64) -> bool:
        """Is one of these answers logged? Ids that do not exist are the run's to refuse."""
        if self.keep is None:
            return False
        return bool(self.keep[rows[(rows >= 0) & (rows < len(self.keep))]].any())


def _words(ints: Ints | Offsets) -> I64:
    return np.ascontiguousarray(np.atleast_1d(np.asarray(ints, np.int64)))


def _flat(data: Buffer) -> memoryview:
    view = np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")
