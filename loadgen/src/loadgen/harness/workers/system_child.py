"""The child's half of `loadgen.harness.workers.system`: builds the system, hands it requests, sends its answers."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import signal
import struct
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadgen.clock import RealClock
from loadgen.contracts import Buffer, Ints, SystemUnderTest
from loadgen.harness.workers.ring import I64, Reader, Ring, Writer

# Requests are three words: kind, id or count, index. Behind FEW and ARRAY follow ids and indices.
ONE, FEW, ARRAY, FLUSH, STOP = range(5)
# Answers begin with three words: kind, time in ns, then the id (DONE), the number of ids (COMPLETE, FIRST; then
# lengths of tokens, offsets and bytes, NONE where there are none, and all of them) or the bytes of a text.
DONE, COMPLETE, FIRST, FAIL, READY, UNABLE = range(10, 16)
NONE = -1

three = struct.Struct("=3q").pack

_PARENT_LOOK_S = 0.25


@dataclass(frozen=True)
class Wanted:
    """What the child has to send."""

    parent: int
    """Process id: the child ends when it has another parent."""
    tokens: bool
    keep: npt.NDArray[np.bool_] | None
    """A flag for each sample: is its answer logged? None: none is."""


def serve(name: str, factory: bytes | str, requests: Ring, answers: Ring, wanted: Wanted) -> None:
    """The child's life. factory: a pickled callable or "module:function"."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_follow, args=(wanted.parent,), name="parent watch", daemon=True).start()
    respond = Sender(Writer(answers), wanted)
    try:
        system = _built(factory)
        system.start(respond)
    except Exception:  # whatever a vendor's code raises must arrive in words
        respond.send(UNABLE, f"{name} did not start in its process:\n{traceback.format_exc()}")
        return
    respond.send(READY)
    reader = Reader(requests)
    _quiet_gc()
    while _obey(name, system, reader, respond):
        pass


def _quiet_gc() -> None:
    """What a run does in its own process (`loadgen.execute.quiet_gc`), without the time to import a run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)


def _follow(parent: int) -> None:
    """End with the parent, however that ends."""
    while os.getppid() == parent:
        time.sleep(_PARENT_LOOK_S)
    os._exit(1)


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
        respond.fail(f"{name}.{what}() raised {type(error).__name__}: {error}\n{traceback.format_exc()}")
    return what != "stop"


class Sender:
    """The system's `Responder`. Reads the clock on entry; sends bytes only where an answer is logged."""

    def __init__(self, answers: Writer, wanted: Wanted) -> None:
        self._answers, self._keep, self._tokens = answers, wanted.keep, wanted.tokens
        self._times_only = wanted.keep is None and not wanted.tokens
        self._lock = threading.Lock()  # any thread answers, the ring has one writer

    def complete(
        self,
        ids: Ints,
        data: Buffer | None = None,
        offsets: Sequence[int] | I64 | None = None,
        n_tokens: Ints | None = None,
    ) -> None:
        """See `contracts.Responder`."""
        at = RealClock.now_ns()
        if self._times_only and type(ids) is int:
            record = three(DONE, at, ids)
            with self._lock:
                self._answers.put(record)
        else:
            self._send_answer(COMPLETE, at, ids, n_tokens if self._tokens else None, data, offsets)

    def first_token(self, ids: Ints, data: Buffer | None = None, offsets: Sequence[int] | I64 | None = None) -> None:
        """See `contracts.Responder`."""
        if self._tokens:
            self._send_answer(FIRST, RealClock.now_ns(), ids, None, data, offsets)

    def fail(self, message: str) -> None:
        """See `contracts.Responder`."""
        self.send(FAIL, message)

    def send(self, kind: int, message: str = "") -> None:
        """A record whose body is text."""
        text = message.encode("utf-8", "replace")
        with self._lock:
            self._answers.write(three(kind, RealClock.now_ns(), len(text)) + text)

    def _send_answer(
        self,
        kind: int,
        at: int,
        ids: Ints,
        n_tokens: Ints | None,
        data: Buffer | None,
        offsets: Sequence[int] | I64 | None,
    ) -> None:
        rows = _words(ids)
        tokens = None if n_tokens is None else _words(np.broadcast_to(np.asarray(n_tokens), rows.shape))
        logged = data is not None and self._keeps(rows)
        bounds = _words(offsets) if logged and offsets is not None else None
        flat = _flat(data) if logged and data is not None else None
        lengths = [NONE if part is None else len(part) for part in (tokens, bounds, flat)]
        head = np.array([kind, at, len(rows), *lengths])
        columns = np.concatenate([part for part in (head, rows, tokens, bounds) if part is not None])
        with self._lock:
            self._answers.write(columns.data)
            if flat is not None:
                self._answers.write(flat)

    def _keeps(self, rows: I64) -> bool:
        """Is one of these answers logged? Ids that do not exist are the parent's to refuse."""
        if self._keep is None:
            return False
        return bool(self._keep[rows[(rows >= 0) & (rows < len(self._keep))]].any())


def _words(ints: Ints) -> I64:
    return np.ascontiguousarray(np.atleast_1d(np.asarray(ints, np.int64)))


def _flat(data: Buffer) -> memoryview:
    view = np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")
