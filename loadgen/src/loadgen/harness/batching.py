"""A system under test around a `Backend`: gathers samples into batches, answers for each.

SingleStream runs in the issuing thread, because its latency is the result. Everything else goes through
one worker thread, so that the load generator can go on issuing on time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from loadgen.contracts import Backend, Dataset, Ints, Responder

_BULK = 64  # an issued query of more samples than this is one Offline query, sorted before it is cut
_IN_FLIGHT = 2  # batches submitted and not yet answered: copies of one overlap the computing of the other


class BatchingSystem:
    """`SystemUnderTest` with dynamic batching.

    A batch goes out when `max_batch` samples wait, or when the first of them has waited `max_wait_s`.
    An Offline query is sorted by `Dataset.cost`, longest first, so that a batch holds equal lengths.
    A prediction that fails ends the run and names its samples; it never becomes an empty answer.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        dataset: Dataset,
        encode: Callable[[Any], tuple[Any, Any]],
        *,
        max_batch: int,
        max_wait_s: float = 0.0,
    ) -> None:
        self.name = name
        self._backend, self._dataset, self._encode = backend, dataset, encode
        self._max_batch, self._max_wait_s = max_batch, max_wait_s
        self._changed = threading.Condition()
        self._single: deque[tuple[int, int]] = deque()  # (id, index), in order of arrival
        self._oldest = 0.0  # when the first of `_single` came
        self._bulk: deque[tuple[Sequence[int], Sequence[int]]] = deque()  # ready batches: ids, indices
        self._closing = self._flushing = False

    def start(self, respond: Responder) -> None:
        self._respond = respond
        self._closing = self._flushing = False
        self._worker = threading.Thread(target=self._work, name="batching", daemon=True)
        self._worker.start()

    def issue(self, ids: Ints, indices: Ints) -> None:
        if isinstance(ids, int):
            assert isinstance(indices, int)
            self._answer((ids,), (indices,), self._submit((indices,)))
            return
        assert not isinstance(indices, int)
        with self._changed:
            self._flushing = False
            if len(ids) > _BULK:
                self._bulk.extend(self._cut(np.asarray(ids), np.asarray(indices)))
            else:
                if not self._single:
                    self._oldest = time.monotonic()
                self._single.extend(zip(ids, indices, strict=True))
            self._changed.notify()

    def flush(self) -> None:
        """Nothing more will join the waiting samples: send them now."""
        with self._changed:
            self._flushing = True
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._closing = True
            self._single.clear()
            self._bulk.clear()
            self._changed.notify()
        self._worker.join()

    def _cut(self, ids: Any, indices: Any) -> list[tuple[Sequence[int], Sequence[int]]]:
        cost = self._dataset.cost
        order = np.argsort([-cost(int(i)) for i in indices], kind="stable")
        size = self._max_batch
        chunks = (order[low : low + size] for low in range(0, len(order), size))
        return [(ids[chunk].tolist(), indices[chunk].tolist()) for chunk in chunks]

    def _work(self) -> None:
        flying: deque[tuple[Sequence[int], Sequence[int], Future[Any]]] = deque()
        while True:
            batch = self._next(wait=not flying)
            if batch is None and not flying:
                return
            try:
                if batch is not None:
                    flying.append((*batch, self._submit(batch[1])))
                while flying and (batch is None or len(flying) >= _IN_FLIGHT or flying[0][2].done()):
                    self._answer(*flying.popleft())
            except Exception as error:  # whatever a model raises ends the run, in words
                self._respond.fail(str(error))
                return

    def _next(self, wait: bool) -> tuple[Sequence[int], Sequence[int]] | None:
        """The next batch; None at the end, or, without `wait`, if nothing is ready."""
        with self._changed:
            while not self._closing:
                if self._bulk:
                    return self._bulk.popleft()
                if self._single:
                    left = self._oldest + self._max_wait_s - time.monotonic()
                    if len(self._single) >= self._max_batch or self._flushing or left <= 0:
                        return self._take()
                    if wait:
                        self._changed.wait(left)
                elif wait:
                    self._changed.wait()
                if not wait:
                    return None
        return None

    def _take(self) -> tuple[Sequence[int], Sequence[int]]:
        count = min(len(self._single), self._max_batch)
        pairs = [self._single.popleft() for _ in range(count)]
        self._oldest = time.monotonic()
        ids, indices = zip(*pairs, strict=True)
        return ids, indices

    def _submit(self, indices: Sequence[int]) -> Future[Any]:
        try:
            return self._backend.submit(self._dataset.gather(indices))
        except Exception as error:
            raise _failure(indices, error) from error

    def _answer(self, ids: Sequence[int], indices: Sequence[int], future: Future[Any]) -> None:
        try:
            data, offsets = self._encode(future.result())
        except Exception as error:
            raise _failure(indices, error) from error
        self._respond.complete(ids if len(ids) > 1 else int(ids[0]), data, offsets)


class PredictionError(RuntimeError):
    """The model failed on named samples."""


def _failure(indices: Sequence[int], error: Exception) -> PredictionError:
    some = ", ".join(str(i) for i in indices[:8]) + (", ..." if len(indices) > 8 else "")
    return PredictionError(f"prediction of sample index {some} failed: {type(error).__name__}: {error}")
