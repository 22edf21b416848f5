"""The child's half of `loadgen.harness.workers.backend`: builds the backend, hands it batches, sends what it returns.

A request is (number, batch), or None to end. An answer is (number, outputs) or (number, `Failure`); the first one has
the number `LOADING`, and `Loaded` in place of outputs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from loadgen.contracts import BackendOptions
from loadgen.harness.workers.failure import Failure
from loadgen.harness.workers.loading import load_here
from loadgen.harness.workers.messages import packed, receive
from loadgen.harness.workers.ring import Reader, Writer

LOADING = 0


def serve(requests: Reader, answers: Writer, dotted: str, options: BackendOptions, install: str) -> None:
    """What the child does (see `child.Child`)."""
    replies = _Replies(answers)
    try:
        backend, loaded = load_here(dotted, options, install)
    except Exception as error:  # whatever a vendor's code raises must arrive
        replies.send(LOADING, Failure.of(error))
        return
    replies.send(LOADING, loaded)
    try:
        while (request := receive(requests)) is not None:
            number, batch = request
            replies.compute(number, partial(backend.submit, batch))
    finally:
        backend.close()


class _Replies:
    """The child's answers; futures may be done on any thread."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self._lock = writer, threading.Lock()

    def send(self, number: int, found: object) -> None:
        sizes, pieces = packed((number, found))
        with self._lock:
            self._writer.write(sizes)
            for piece in pieces:
                self._writer.write(piece)

    def compute(self, number: int, submit: Callable[[], Future[Any]]) -> None:
        """Answer when the future is done; a prediction that fails is an answer too."""
        try:
            future = submit()
        except Exception as error:  # as above
            self.send(number, Failure.of(error))
        else:
            future.add_done_callback(partial(self._done, number))

    def _done(self, number: int, future: Future[Any]) -> None:
        try:
            self.send(number, future.result())
        except Exception as error:  # the prediction's, or its outputs cannot travel
            self.send(number, Failure.of(error))
