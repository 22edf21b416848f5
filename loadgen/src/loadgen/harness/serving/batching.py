"""A system under test around one or more `Backend`s: gathers samples into batches, answers for each.

SingleStream runs in the issuing thread, because its latency is the result. Everything else goes through
one thread a worker, so that the load generator can go on issuing on time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from itertools import pairwise, repeat
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from loadgen.contracts import Backend, Dataset, Ints, Responder
from loadgen.harness.serving import bucketing

_BULK = 64  # an issued query of more samples than this is one Offline query, sorted before it is cut
_IN_FLIGHT = 2  # batches a worker has submitted and not answered: copies of one overlap the computing of the other
_LOOK_S = 0.25  # how often a worker that waits for its backend looks whether the run is over
_STOP_S = 10.0  # how long stop() waits for batches that nobody needs any more

Batch: TypeAlias = "tuple[Sequence[int], Sequence[int]]"  # ids, indices


class BatchingSystem:
    """`SystemUnderTest` with dynamic batching; each backend is a worker with a thread of its own.

    A batch goes out when `max_batch` samples wait, or when the first of them has waited `max_wait_s`. Workers
    pull: a batch goes to one that computes nothing, else to one with room for a second, so a slow worker gets
    fewer. A second one has at least half the samples of the first: until then more may join it without making
    it later, and a few large batches take less time than many small ones. max_tokens: the most that the longest
    sample's cost times the batch's size may be; an Offline query is sorted by `Dataset.cost` in any case, longest
    first, so that a batch holds equal lengths.
    A prediction that fails ends the run and names its samples; it never becomes an empty answer.
    With several workers `Dataset.gather` and `encode` are called by several threads at once.
    """

    def __init__(
        self,
        name: str,
        backends: Sequence[Backend],
        dataset: Dataset,
        encode: Callable[[Any], tuple[Any, Any]],
        *,
        max_batch: int,
        max_wait_s: float = 0.0,
        max_tokens: int | None = None,
    ) -> None:
        self.name = name
        self._backends, self._dataset, self._encode = backends, dataset, encode
        costs = bucketing.Costs(dataset)
        self._new_queue = partial(_Queue, costs, max_batch, max_wait_s, max_tokens)

    def start(self, respond: Responder) -> None:
        self._respond = respond
        self._queue = self._new_queue()
        self._threads = [
            threading.Thread(target=self._work, args=(backend,), name=f"worker {number}", daemon=True)
            for number, backend in enumerate(self._backends)
        ]
        for thread in self._threads:
            thread.start()

    def warm_up(self, indices: Sequence[int]) -> None:
        """Each backend computes a loaded sample: what it does for the first one alone must not delay a query."""
        for backend in self._backends:
            self._encoded(self._submit(backend, ((), indices[:1])))

    def issue(self, ids: Ints, indices: Ints) -> None:
        if isinstance(ids, int):
            assert isinstance(indices, int)
            self._answer(self._submit(self._backends[0], ((ids,), (indices,))))
            return
        assert not isinstance(indices, int)
        if len(ids) > _BULK:
            self._queue.put_bulk(ids, indices)
        else:
            self._queue.put(ids, indices)

    def flush(self) -> None:
        """Nothing more will join the waiting samples: send them now."""
        self._queue.flush()

    def stop(self) -> None:
        """What waits is dropped; what computes is waited for, as a thread cannot be ended."""
        self._queue.close()
        for thread in self._threads:
            thread.join()

    def _work(self, backend: Backend) -> None:
        flying: deque[_Flight] = deque()
        try:
            while not self._queue.closed:
                self._advance(backend, flying)
        except Exception as error:  # whatever a model raises ends the run, in words
            self._respond.fail(str(error))
        wait([flight.future for flight in flying], _STOP_S)  # the next test finds the backend free

    def _advance(self, backend: Backend, flying: deque[_Flight]) -> None:
        """Submit the next batch, or wait for one; answer those that are ready."""
        if len(flying) < _IN_FLIGHT:
            batch = self._queue.next(flying[0] if flying else None)
            if batch is not None:
                flying.append(self._submit(backend, batch))
        else:
            wait([flying[0].future], _LOOK_S)
        while flying and flying[0].future.done():
            self._answer(flying.popleft())

    def _submit(self, backend: Backend, batch: Batch) -> _Flight:
        try:
            future = backend.submit(self._dataset.gather(batch[1]))
        except Exception as error:
            raise _failure(batch[1], error) from error
        if not future.done():
            future.add_done_callback(self._queue.answered)
        return _Flight(*batch, future)

    def _encoded(self, flight: _Flight) -> tuple[Any, Any]:
        try:
            return self._encode(flight.future.result())
        except Exception as error:
            raise _failure(flight.indices, error) from error

    def _answer(self, flight: _Flight) -> None:
        ids = flight.ids
        data, offsets = self._encoded(flight)
        self._respond.complete(ids if len(ids) > 1 else int(ids[0]), data, offsets)


def finished(outputs: Any) -> Future[Any]:
    """What `Backend.submit` returns if it has computed already."""
    future: Future[Any] = Future()
    future.set_result(outputs)
    return future


class _Flight(NamedTuple):
    """A batch that a backend has."""

    ids: Sequence[int]
    indices: Sequence[int]
    future: Future[Any]


class _Queue:
    """What waits to be predicted, shared by the workers. Any thread may call any method."""

    def __init__(self, costs: bucketing.Costs, max_batch: int, max_wait_s: float, budget: int | None) -> None:
        self._costs, self._max_batch, self._max_wait_s, self._budget = costs, max_batch, max_wait_s, budget
        self._lock = threading.Lock()
        # One wake-up must reach one worker that can use it, so those with and without a batch wait apart.
        self._idle, self._busy = threading.Condition(self._lock), threading.Condition(self._lock)
        self._idlers = 0
        self._wanted = max_batch  # the fewest samples for which one that waits with a batch should be woken
        self._single: deque[tuple[int, int, float]] = deque()  # id, index, when it came; in order of arrival
        self._bulk: deque[tuple[Any, Any]] = deque()  # ready batches
        self._flushing = False
        self.closed = False

    def put(self, ids: Any, indices: Any) -> None:
        now = time.monotonic()
        with self._lock:
            self._flushing = False
            self._single.extend(zip(ids, indices, repeat(now)))  # as many ids as indices
            self._wake()

    def put_bulk(self, ids: Any, indices: Any) -> None:
        """Sort by cost, longest first, and cut."""
        ids, indices = np.asarray(ids), np.asarray(indices)
        costs = self._costs.of(indices)
        order = bucketing.longest_first(costs)
        begins = bucketing.cut(costs[order], self._max_batch, self._budget)
        ids, indices = ids[order], indices[order]
        with self._lock:
            self._flushing = False
            self._bulk.extend((ids[low:high], indices[low:high]) for low, high in pairwise(begins))
            self._wake()

    def flush(self) -> None:
        with self._lock:
            self._flushing = True
            self._wake()

    def close(self) -> None:
        with self._lock:
            self.closed = True
            self._single.clear()
            self._bulk.clear()
            self._idle.notify_all()
            self._busy.notify_all()

    def answered(self, _: Future[Any]) -> None:
        """A backend's future is done: its worker should look."""
        with self._lock:
            self._busy.notify_all()

    def next(self, oldest: _Flight | None) -> Batch | None:
        """Wait for the next batch. None if the queue was closed, or if `oldest`, which the worker has, is done."""
        batch = None
        fewest = (len(oldest.ids) + 1) // 2 if oldest else 0
        with self._lock:
            while batch is None and not self.closed and not (oldest and oldest.future.done()):
                left = self._left()
                if left is not None and left <= 0 and not (oldest and self._idlers) and self._has(fewest):
                    batch = self._take()
                else:
                    self._wait(fewest, timeout_s=left if left and left > 0 else None)
            if self._bulk or self._single:
                self._wake()  # this worker will not look for a while
        return batch

    def _has(self, fewest: int) -> bool:
        return bool(self._bulk) or self._flushing or len(self._single) >= fewest

    def _wake(self) -> None:
        if self._idlers:
            self._idle.notify()
        elif self._has(self._wanted):
            self._wanted = self._max_batch  # until those who are woken wait again
            self._busy.notify_all()

    def _wait(self, fewest: int, timeout_s: float | None) -> None:
        """fewest: see `_wanted`; 0: this worker has no batch."""
        if fewest:
            self._wanted = min(self._wanted, fewest)
            self._busy.wait(timeout_s)
            return
        self._idlers += 1
        self._idle.wait(timeout_s)
        self._idlers -= 1

    def _left(self) -> float | None:
        """Seconds until a batch is ready, 0 or less if one is. None if nothing waits."""
        if self._bulk:
            return 0.0
        if not self._single:
            return None
        left = self._single[0][2] + self._max_wait_s - time.monotonic()
        return 0.0 if left > 0 and (self._flushing or self._is_full()) else left

    def _is_full(self) -> bool:
        """Could a later sample not join the batch that waits?"""
        if len(self._single) >= self._max_batch or self._budget is None:
            return len(self._single) >= self._max_batch
        costs = self._costs.of([index for _, index, _ in self._single])
        chosen = bucketing.nearest(costs, self._max_batch, self._budget)
        return len(chosen) >= bucketing.room(int(costs[chosen].max()), self._max_batch, self._budget)

    def _take(self) -> Batch:
        if self._bulk:
            ids, indices = self._bulk.popleft()
            return ids.tolist(), indices.tolist()
        most = self._max_batch * (1 if self._budget is None else bucketing.WINDOW)
        batch = [self._single.popleft() for _ in range(min(len(self._single), most))]
        if self._budget is not None:
            costs = self._costs.of([index for _, index, _ in batch])
            chosen = bucketing.nearest(costs, self._max_batch, self._budget)
            left = set(range(len(batch))).difference(chosen)
            self._single.extendleft(batch[at] for at in sorted(left, reverse=True))
            batch = [batch[at] for at in chosen]
        ids, indices, _ = zip(*batch, strict=True)
        return ids, indices


class PredictionError(RuntimeError):
    """The model failed on named samples."""


def _failure(indices: Sequence[int], error: Exception) -> PredictionError:
    some = ", ".join(str(i) for i in indices[:8]) + (", ..." if len(indices) > 8 else "")
    return PredictionError(f"prediction of sample index {some} failed: {type(error).__name__}: {error}")
