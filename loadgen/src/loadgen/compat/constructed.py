"""What ConstructSUT and ConstructQSL make: the contracts of the load generator around a submission's callbacks."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from loadgen.compat import answers
from loadgen.compat.samples import QuerySample, listed, made, refilled
from loadgen.contracts import Ints, Responder
from loadgen.recorder import Recorder
from loadgen.settings import Scenario


class System:
    """A system, which is given queries in its callback's form."""

    def __init__(
        self, name: Callable[[], str], issue: Callable[..., Any], flush: Callable[[], Any], fast: bool
    ) -> None:
        self._ask, self._callback, self._flush, self._fast = name, issue, flush, fast
        _check_callable(issue=issue, flush=flush, client_name=name)
        self._scenario = Scenario.SingleStream

    def prepare(self, scenario: Scenario) -> None:
        """For a test."""
        self._scenario = scenario

    @property
    def name(self) -> str:
        return str(self._ask())

    def start(self, respond: Responder) -> None:
        """Answers go to this test from now on."""
        assert isinstance(respond, Recorder)
        first = answers.attach(respond)
        multi_stream = self._scenario is Scenario.MultiStream
        make = _fast if self._fast else _refilled if multi_stream else _plain
        self.issue: Callable[[Any, Any], None] = make(self._callback, first)

    def flush(self) -> None:
        self._flush()

    def stop(self) -> None:
        answers.detach()


# Each returns what issues a query. first: the id of the test's first sample.


def _plain(issue: Callable[..., Any], first: int) -> Callable[[Any, Any], None]:
    def issue_samples(ids: Ints, indices: Ints) -> None:
        if type(ids) is int:
            issue([QuerySample(ids + first, indices)])  # type: ignore[arg-type]
        elif type(ids) is tuple:  # Server: one id
            issue([QuerySample(ids[0] + first, indices[0])])  # type: ignore[index]
        else:
            issue(made(ids, indices, first))

    return issue_samples


def _refilled(issue: Callable[..., Any], first: int) -> Callable[[Any, Any], None]:
    samples: list[QuerySample] = []  # of the last query

    def issue_samples(ids: range, indices: list[int]) -> None:
        issue(refilled(samples, ids, indices, first))

    return issue_samples


def _fast(issue: Callable[..., Any], first: int) -> Callable[[Any, Any], None]:
    def issue_columns(ids: Ints, indices: Ints) -> None:
        if type(ids) is int:
            issue([ids + first], [indices])
        else:
            issue(list(range(ids[0] + first, ids[-1] + first + 1)), listed(indices))  # type: ignore[index]

    return issue_columns


class Library:
    """A sample library."""

    name = "PyQSL"

    def __init__(
        self, total: int, performance: int, load: Callable[[list[int]], Any], unload: Callable[[list[int]], Any]
    ) -> None:
        _check_callable(load=load, unload=unload)
        self.total_count, self.performance_count = operator.index(total), operator.index(performance)
        self._load, self._unload = load, unload

    def load(self, indices: Sequence[int]) -> None:
        self._load(list(indices))

    def unload(self, indices: Sequence[int]) -> None:
        self._unload(list(indices))


def _check_callable(**callbacks: object) -> None:
    for name, callback in callbacks.items():
        if not callable(callback):
            raise TypeError(f"{name} is {callback!r}: pass a function")
