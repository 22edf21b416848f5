"""What waits to be predicted, shared by the workers that pull batches from it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import numpy as np

from loadgen.contracts import I64
from loadgen.harness.serving import bucketing


class Batch(NamedTuple):
    """Samples that are predicted together: two columns of one length."""

    ids: I64
    indices: I64
    waited_s: float = 0.0
    """Of all of them together, until they were taken."""
    waiting: int = 0
    """How many samples waited when they were taken, they included."""


class Waiting:
    """Samples that wait, singly or in ready batches. Any thread may call any method.

    A batch goes to a worker that computes nothing, else to one with room for a second. A second one has at least half
    the samples of the first: until then more may join it without making it later, and a few large batches take less
    time than many small ones.
    """

    def __init__(self, costs: bucketing.Costs, rules: bucketing.Batching) -> None:
        self._costs, self._rules = costs, rules
        self._lock = threading.Lock()
        # One wake-up must reach one worker that can use it, so those with and without a batch wait apart.
        self._idle, self._busy = threading.Condition(self._lock), threading.Condition(self._lock)
        self._idlers = 0
        self._wanted = rules.max_batch  # the fewest samples for which one that waits with a batch should be woken
        self._single: deque[tuple[int, int, float]] = deque()  # id, index, when it came; in order of arrival
        self._ready: deque[Batch] = deque()
        self._in_ready, self._ready_since = 0, 0.0  # samples in all ready batches; when they came
        self.began_s: float | None = None
        """When the first sample came."""
        self._flushing = False
        self.closed = False

    def put(self, ids: Iterable[int], indices: Iterable[int]) -> None:
        """A query; its samples are batched as they come."""
        now = time.monotonic()
        with self._lock:
            self._flushing = False
            if self.began_s is None:
                self.began_s = now
            self._single.extend(zip(ids, indices, repeat(now)))  # as many ids as indices
            self._wake()

    def put_bulk(self, ids: I64, indices: I64) -> None:
        """A query with every sample of a test: sort by cost, longest first, and cut."""
        now = time.monotonic()
        costs = self._costs.of(indices)
        order = bucketing.longest_first(costs)
        begins = bucketing.cut(costs[order], self._rules)
        ids, indices = ids[order], indices[order]
        with self._lock:
            self._flushing = False
            if self.began_s is None:
                self.began_s = now
            self._in_ready, self._ready_since = self._in_ready + len(ids), now
            self._ready.extend(Batch(ids[low:high], indices[low:high]) for low, high in pairwise(begins))
            self._wake()

    def flush(self) -> None:
        """Nothing more will join those that wait."""
        with self._lock:
            self._flushing = True
            self._wake()

    def close(self) -> None:
        """Drop what waits; `next` returns None from now on."""
        with self._lock:
            self.closed = True
            self._single.clear()
            self._ready.clear()
            self._idle.notify_all()
            self._busy.notify_all()

    def answered(self, _: Future[Any]) -> None:
        """A backend's future is done: its worker should look."""
        with self._lock:
            self._busy.notify_all()

    def next(self, held: int = 0, oldest: Future[Any] | None = None) -> Batch | None:
        """Wait for the next batch. None if this was closed, or if `oldest` is done, the future of the batch of `held`
        samples that the worker has."""
        batch = None
        fewest = (held + 1) // 2
        with self._lock:
            while batch is None and not self.closed and not (oldest and oldest.done()):
                left = self._left()
                if left is not None and left <= 0 and not (oldest and self._idlers) and self._has(fewest):
                    batch = self._take()
                else:
                    self._wait(fewest, timeout_s=left if left and left > 0 else None)
            if self._ready or self._single:
                self._wake()  # this worker will not look for a while
        return batch

    def _has(self, fewest: int) -> bool:
        return bool(self._ready) or self._flushing or len(self._single) >= fewest

    def _wake(self) -> None:
        if self._idlers:
            self._idle.notify()
        elif self._has(self._wanted):
            self._wanted = self._rules.max_batch  # until those who are woken wait again
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
        if self._ready:
            return 0.0
        if not self._single:
            return None
        left = self._single[0][2] + self._rules.max_wait_s - time.monotonic()
        return 0.0 if left > 0 and (self._flushing or self._is_full()) else left

    def _is_full(self) -> bool:
        """Could a later sample not join the batch that waits?"""
        if len(self._single) >= self._rules.max_batch or self._rules.max_cost is None:
            return len(self._single) >= self._rules.max_batch
        return bucketing.pick(self._costs.of([index for _, index, _ in self._single]), self._rules)[1]

    def _take(self) -> Batch:
        now, waiting = time.monotonic(), self._in_ready + len(self._single)
        if self._ready:
            ready = self._ready.popleft()
            self._in_ready -= len(ready.ids)
            return ready._replace(waited_s=len(ready.ids) * (now - self._ready_since), waiting=waiting)
        most = self._rules.max_batch * (1 if self._rules.max_cost is None else bucketing.WINDOW)
        batch = [self._single.popleft() for _ in range(min(len(self._single), most))]
        if self._rules.max_cost is not None:
            chosen, _ = bucketing.pick(self._costs.of([index for _, index, _ in batch]), self._rules)
            left = set(range(len(batch))).difference(chosen)
            self._single.extendleft(batch[at] for at in sorted(left, reverse=True))
            batch = [batch[at] for at in chosen]
        ids, indices, came = zip(*batch, strict=True)
        return Batch(np.array(ids, np.int64), np.array(indices, np.int64), len(ids) * now - sum(came), waiting)
