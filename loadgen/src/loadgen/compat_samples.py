"""The objects of the official Python API: samples that ask, responses that answer."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import Any, TypeAlias

from loadgen.contracts import Ints

_MANY = 100_000  # samples of a query from which their number, not their handling, takes the time


class QuerySample:
    """One sample of a query."""

    __slots__ = ("id", "index")

    def __init__(self, id: int = 0, index: int = 0) -> None:
        self.id = id
        self.index = index

    def __repr__(self) -> str:
        return f"QuerySample(id={self.id}, index={self.index})"


class QuerySampleResponse:
    """An answer: `size` bytes at the address `data`, read during QuerySamplesComplete."""

    __slots__ = ("data", "id", "n_tokens", "size")

    def __init__(self, id: int = 0, data: int = 0, size: int = 0, n_tokens: int = 0) -> None:
        self.id = id
        self.data = data
        self.size = size
        self.n_tokens = n_tokens

    def __repr__(self) -> str:
        return f"QuerySampleResponse(id={self.id}, size={self.size}, n_tokens={self.n_tokens})"


class VectorQuerySample(list[QuerySample]):
    """The official vector type is list-like; this is a list."""


class VectorQuerySampleResponse(list[QuerySampleResponse]):
    """The official vector type is list-like; this is a list."""


Responses: TypeAlias = Sequence[QuerySampleResponse]

_ALONE = sum(map(getrefcount, [QuerySample()]))  # what is counted for a sample that only one list holds


def sample_maker() -> Callable[[Any, Ints], list[QuerySample]]:
    """Makes the samples of a query from its ids, which follow each other, and indices.

    Those of the query before are used again if nobody holds one of them any more: to fill a sample takes half as
    long as to make one. They are taken out of `spare` meanwhile, because several threads may issue.
    """
    spare: list[list[QuerySample]] = []

    def make(ids: Any, indices: Any) -> list[QuerySample]:
        first, size = ids[0] + 1, len(indices)
        if size == 1:
            return [QuerySample(first, indices[0])]
        if size >= _MANY:
            return _many(range(first, first + size), listed(indices))
        try:
            samples = spare.pop()
        except IndexError:
            samples = []
        if len(samples) == size and sum(map(getrefcount, samples)) == size * _ALONE:
            k = 0
            for sample in samples:
                sample.id = first + k
                sample.index = indices[k]
                k += 1
        else:
            samples = list(map(QuerySample, range(first, first + size), listed(indices)))
        spare.append(samples)
        return samples.copy()

    return make


def _many(ids: range, indices: list[int]) -> list[QuerySample]:
    """A large query. The garbage collector need not walk millions of new samples."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        samples = list(map(QuerySample, ids, indices))
        gc.freeze()  # until the run ends (see `execute.quiet_gc`)
    finally:
        if enabled:
            gc.enable()
    return samples


def listed(indices: Any) -> list[int]:
    """Python integers in a list."""
    return indices if type(indices) is list else indices.tolist()
