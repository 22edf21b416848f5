"""A system under test around one or more `Backend`s: gathers samples into batches, answers for each.

SingleStream runs in the issuing thread, because its latency is the result. Everything else goes through
one thread a worker, so that the load generator can go on issuing on time.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Any, Generic, NamedTuple

import numpy as np

from loadgen.contracts import Answers, B, Backend, Dataset, Encode, Figures, Ints, O, Responder
from loadgen.harness.serving.bucketing import Batching, Costs
from loadgen.harness.serving.flow import Flow, measured
from loadgen.harness.serving.waiting import Batch, Waiting

_IN_FLIGHT = 2  # batches a worker has submitted and not answered: copies of one overlap the computing of the other
_LOOK_S = 0.25  # how often a worker that waits for its backend looks whether the run is over
_STOP_S = 10.0  # how long stop() waits for batches that nobody needs any more


class BatchingSystem(Generic[B, O]):
    """`SystemUnderTest` with dynamic batching; each backend is a worker with a thread of its own.

    A batch goes out when `max_batch` samples wait, or when the first of them has waited `max_wait_s`. Workers pull, so
    a slow one gets fewer (see `waiting`). An Offline query, which comes as arrays, is sorted by `Dataset.costs`,
    longest first, so that a batch holds equal lengths and the last one is short.
    A prediction that fails ends the run and names its samples; it never becomes an empty answer.
    With several workers `Dataset.gather` and `encode` are called by several threads at once.
    """

    def __init__(
        self,
        name: str,
        backends: Sequence[Backend[B, O]],
        dataset: Dataset[B],
        encode: Encode[O],
        batching: Batching,
    ) -> None:
        self.name = name
        self._backends, self._dataset, self._encode, self._rules = backends, dataset, encode, batching
        self._costs = Costs(dataset)

    def start(self, respond: Responder) -> None:
        """See `contracts.SystemUnderTest`."""
        self._respond = respond
        self._waiting = Waiting(self._costs, self._rules)
        self._flows = [Flow() for _ in self._backends]
        self._threads = [
            threading.Thread(target=self._work, args=(backend, flow), name=f"worker {number}", daemon=True)
            for number, (backend, flow) in enumerate(zip(self._backends, self._flows, strict=True))
        ]
        for thread in self._threads:
            thread.start()

    def warm_up(self, indices: Sequence[int]) -> None:
        """Each backend computes a loaded sample: what it does for the first one alone must not delay a query."""
        self._costs.learn(indices)
        one = np.array(indices[:1], np.int64)
        for backend in self._backends:
            self._encoded(self._submit(backend, Batch(one, one)))

    def issue(self, ids: Ints, indices: Ints) -> None:
        """See `contracts.SystemUnderTest`."""
        if isinstance(ids, np.ndarray):
            self._waiting.put_bulk(ids, np.asarray(indices))
        elif isinstance(ids, int):
            batch = Batch(np.array((ids,), np.int64), np.array((indices,), np.int64))
            self._answer(self._submit(self._backends[0], batch))
        else:
            assert not isinstance(indices, int)
            self._waiting.put(ids, indices)

    def flush(self) -> None:
        """Nothing more will join the waiting samples: send them now."""
        self._waiting.flush()

    def stop(self) -> None:
        """What waits is dropped; what computes is waited for, as a thread cannot be ended."""
        self._waiting.close()
        for thread in self._threads:
            thread.join()

    def measured(self) -> Figures:
        """See `flow.measured`; empty in SingleStream, where no batch is formed."""
        return measured(self._flows)

    def _work(self, backend: Backend[B, O], flow: Flow) -> None:
        flying: deque[_Flight] = deque()
        try:
            while not self._waiting.closed:
                self._advance(backend, flying, flow)
        except Exception as error:  # whatever a model raises ends the run, in words
            self._respond.fail(str(error), "".join(traceback.format_exception(error)))
        wait([flight.future for flight in flying], _STOP_S)  # the next test finds the backend free

    def _advance(self, backend: Backend[B, O], flying: deque[_Flight], flow: Flow) -> None:
        """Submit the next batch, or wait for one; answer those that are ready."""
        if len(flying) < _IN_FLIGHT:
            batch = self._waiting.next(len(flying[0].batch.ids), flying[0].future) if flying else self._waiting.next()
            if batch is not None:
                flow.began_s, now = self._waiting.began_s or 0.0, time.monotonic()
                flying.append(self._submit(backend, batch, now))
                flow.formed(len(batch.ids), now, batch.waiting)
        else:
            wait([flying[0].future], _LOOK_S)
        while flying and flying[0].future.done():
            flight = flying.popleft()
            self._answer(flight)
            count, now = len(flight.batch.ids), time.monotonic()
            flow.done(count, now, flight.batch.waited_s, count * (now - flight.began_s))

    def _submit(self, backend: Backend[B, O], batch: Batch, now: float = 0.0) -> _Flight:
        try:
            future = backend.submit(self._dataset.gather(batch.indices))
        except Exception as error:
            raise failure(batch.indices, error) from error
        if not future.done():
            future.add_done_callback(self._waiting.answered)
        return _Flight(batch, future, now)

    def _encoded(self, flight: _Flight) -> Answers:
        try:
            return self._encode(flight.future.result(), flight.batch.indices, self._dataset)
        except Exception as error:
            raise failure(flight.batch.indices, error) from error

    def _answer(self, flight: _Flight) -> None:
        ids = flight.batch.ids
        answers = self._encoded(flight)
        self._respond.complete(ids if len(ids) > 1 else int(ids[0]), *answers)


def finished(outputs: O) -> Future[O]:
    """What `Backend.submit` returns if it has computed already."""
    future: Future[O] = Future()
    future.set_result(outputs)
    return future


class _Flight(NamedTuple):
    """A batch that a backend has."""

    batch: Batch
    future: Future[Any]
    began_s: float


class PredictionError(RuntimeError):
    """The model failed on named samples."""


def failure(indices: Sequence[int] | np.ndarray[Any, Any], error: Exception) -> PredictionError:
    """What a backend, `gather` or `encode` raised, with the samples that it was given."""
    some = ", ".join(str(i) for i in indices[:8]) + (", ..." if len(indices) > 8 else "")
    return PredictionError(f"prediction of sample index {some} failed: {type(error).__name__}: {error}")
