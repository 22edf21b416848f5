"""A system under test around a `TokenBackend`: admits requests as they fit, reports first tokens, answers at the end.

One thread owns the backend: it adds what waits, steps, and reports what came out. Requests are numbered by their ids.
What a step brings is handled in columns, and in plain lists where each request has its own: 256 running requests cost
less than a millisecond a step.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from typing import Generic

import numpy as np

from loadgen.contracts import (
    I64,
    B,
    Dataset,
    Encode,
    Figures,
    InputError,
    Ints,
    RequestError,
    Responder,
    TokenBackend,
    Tokens,
)
from loadgen.harness.serving.batching import failure
from loadgen.harness.serving.bucketing import Batching, Costs, longest_first
from loadgen.harness.serving.flow import Flow, measured
from loadgen.harness.serving.gaps import Gaps

_LOOK_S = 0.25  # how long a step may wait before this looks whether the run is over


class StreamingSystem(Generic[B]):
    """`SystemUnderTest` with continuous batching over one backend.

    Requests are admitted in the order in which they came; those of an Offline query the costliest first, so that the
    end is not one long answer. `encode` gets a list of int64 columns, the tokens of each request, first one included.
    """

    def __init__(
        self,
        name: str,
        backends: Sequence[TokenBackend[B]],
        dataset: Dataset[B],
        encode: Encode[list[I64]],
        batching: Batching,
    ) -> None:
        """batching: nothing waits for a fuller batch here, and the backend knows how much it takes."""
        self.name = name
        if len(backends) > 1:
            raise InputError(f"{len(backends)} workers: continuous batching runs one engine; spread it over devices")
        if not isinstance(backends[0], TokenBackend):  # a worker elsewhere has `submit` only
            raise InputError("continuous batching steps its engine here: leave out --worker-kind and --replicas")
        self._backend = backends[0]
        self._dataset, self._encode = dataset, encode
        self._costs = Costs(dataset)

    def start(self, respond: Responder) -> None:
        """See `contracts.SystemUnderTest`."""
        self._respond = respond
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, int, float]] = deque()  # id, index, when it came
        self._running = _Requests()
        self._gaps, self._flow = Gaps(), Flow()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def warm_up(self, indices: Sequence[int]) -> None:
        """Costs are asked for while the clock is stopped."""
        self._costs.learn(indices)

    def issue(self, ids: Ints, indices: Ints) -> None:
        """See `contracts.SystemUnderTest`."""
        if isinstance(ids, np.ndarray):
            indices = np.asarray(indices)
            order = longest_first(self._costs.of(indices))
            ids, indices = ids[order].tolist(), indices[order].tolist()
        now = time.monotonic()
        new = [(ids, indices, now)] if isinstance(ids, int) else zip(ids, indices, repeat(now))  # type: ignore[arg-type]
        with self._changed:
            self._flow.began_s = self._flow.began_s or now
            self._waiting.extend(new)  # type: ignore[arg-type]
            self._changed.notify()

    def flush(self) -> None:
        """Nothing is held back."""

    def stop(self) -> None:
        """What waits and what runs is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def measured(self) -> Figures:
        """Times between the tokens of a request, over all of them, and `flow.measured`, where a batch is a step."""
        return {**self._gaps.measured(), **measured([self._flow])}

    def _work(self) -> None:
        try:
            while self._admit():
                tokens = self._backend.step(_LOOK_S)
                self._flow.formed(len(self._running), time.monotonic(), len(self._waiting) + len(self._running))
                self._report(tokens)
        except Exception as error:  # whatever a model raises ends the run, in words
            named = self._running.get(error.request) if isinstance(error, RequestError) else None
            told = failure([named.index], error) if named else error
            self._respond.fail(str(told) or type(told).__name__, "".join(traceback.format_exception(error)))

    def _admit(self) -> bool:
        """Give the backend what it has room for; wait while there is nothing to do. False: the run is over."""
        with self._changed:
            while not self._closed and not self._waiting and not self._running:
                self._changed.wait()
            if self._closed:
                return False
            room = self._backend.room() if self._waiting else 0
            new = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        if new:
            ids, indices = (np.array(column, np.int64) for column in list(zip(*new, strict=True))[:2])
            now = time.monotonic()
            self._running.update((number, _Running(index, came, now)) for number, index, came in new)
            try:
                self._backend.add(ids, self._dataset.gather(indices))
            except RequestError:
                raise
            except Exception as error:
                raise failure(indices, error) from error
        return True

    def _report(self, tokens: Tokens) -> None:
        _check(tokens)
        self._gaps.add(tokens.requests[np.diff(tokens.offsets) > 0], time.monotonic_ns())
        ids, bounds = tokens.ids.tolist(), tokens.offsets.tolist()
        first: list[int] = []
        for row, number in enumerate(tokens.requests.tolist()):
            kept = self._running[number].tokens
            new = ids[bounds[row] : bounds[row + 1]]
            if new and not kept:
                first.append(number)
            kept += new
        if first:
            self._first(first)
        if tokens.finished.any():
            self._finish(tokens.requests[tokens.finished].tolist())

    def _first(self, ids: list[int]) -> None:
        tokens = [np.array(self._running[number].tokens[:1], np.int64) for number in ids]
        encoded = self._encode(tokens, self._indices(ids), self._dataset)
        self._respond.first_token(ids if len(ids) > 1 else ids[0], encoded.data, encoded.offsets)

    def _finish(self, ids: list[int]) -> None:
        outputs = [np.array(self._running[number].tokens, np.int64) for number in ids]
        encoded = self._encode(outputs, self._indices(ids), self._dataset)
        self._respond.complete(ids if len(ids) > 1 else ids[0], *encoded)
        now = time.monotonic()
        for number in ids:
            ended = self._running[number]
            del self._running[number]
            self._flow.done(1, now, ended.added_s - ended.came_s, now - ended.added_s)

    def _indices(self, ids: list[int]) -> I64:
        return np.array([self._running[number].index for number in ids], np.int64)


class _Running:
    """A request that the backend has: its sample, when it came and was added, and its tokens so far."""

    __slots__ = ("added_s", "came_s", "index", "tokens")

    def __init__(self, index: int, came_s: float, added_s: float) -> None:
        self.index, self.came_s, self.added_s = index, came_s, added_s
        self.tokens: list[int] = []


class _Requests(dict[int, _Running]):
    """Those that the backend has, by number."""

    def __missing__(self, number: int) -> _Running:
        raise ValueError(
            f"the backend's step() told of request {number}, which does not run: it was never added, or step() told "
            "before, or twice at once, that it is finished"
        )


def _check(tokens: Tokens) -> None:
    """Raises ValueError for columns that do not fit together: what follows would name neither them nor the backend."""
    rows = len(tokens.requests)
    if not all(isinstance(column, np.ndarray) for column in tokens) or tokens.ids.dtype.kind not in "iu":
        kinds = ", ".join(str(getattr(column, "dtype", type(column).__name__)) for column in tokens)
        raise ValueError(f"the backend's step() gave {kinds}, expected arrays of int64, int64, int64 and bool")
    if len(tokens.offsets) != rows + 1 or len(tokens.finished) != rows or tokens.offsets[-1] != len(tokens.ids):
        raise ValueError(
            f"the backend's step() gave {rows} requests, {len(tokens.finished)} times finished and {len(tokens.ids)} "
            f"ids, with offsets {tokens.offsets.tolist()[:3]}..., expected {rows} times finished and {rows + 1} "
            f"offsets up to {len(tokens.ids)}"
        )


def tokens_of(rows: Sequence[tuple[int, Sequence[int], bool]]) -> Tokens:
    """A step's columns from rows of (request, its new tokens, is it finished): for engines that think in rows."""
    lengths = [len(new) for _, new, _ in rows]
    return Tokens(
        np.array([request for request, _, _ in rows], np.int64),
        np.array([token for _, new, _ in rows for token in new], np.int64),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([done for _, _, done in rows], np.bool_),
    )
