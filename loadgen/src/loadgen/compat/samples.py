"""The objects of the official Python API: samples that ask, responses that answer."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from sys import getrefcount
from typing import Any, TypeAlias

import numpy as np

_MANY = 100_000  # samples of a query from which their number, not their handling, takes the time
SAMPLE_BYTES = 200
"""What a sample of a large query takes: a QuerySample with its id, its place in a list, and an answer made for it."""


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


def made(ids: Any, indices: Any, first: int) -> list[QuerySample]:
    """The samples of a query, whose ids follow each other. first: the id of the test's first sample."""
    ones = range(int(ids[0]) + first, int(ids[-1]) + first + 1)
    if len(ones) >= _MANY:
        return _many(ones, _shared(indices))
    return list(map(QuerySample, ones, listed(indices)))


def refilled(samples: list[QuerySample], ids: range, indices: list[int], first: int) -> list[QuerySample]:
    """As `made`, of the samples of the query before, `samples`, if nobody else holds one of them; else into it.

    To fill a sample takes half as long as to make one. Only for queries that one thread issues, one after another.
    """
    if len(samples) == len(indices) and sum(map(getrefcount, samples)) == len(samples) * _ALONE:
        one, k = ids.start + first, 0
        for sample in samples:  # enumerate would be slower
            sample.id = one + k
            sample.index = indices[k]
            k += 1  # noqa: SIM113
    else:
        samples[:] = made(ids, indices, first)
    return samples.copy()


def _many(ids: range, indices: list[int]) -> list[QuerySample]:
    """A large query. The garbage collector need not walk millions of samples while they are made."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return list(map(QuerySample, ids, indices))
    finally:
        if enabled:
            gc.enable()


def _shared(indices: Any) -> list[int]:
    """Python integers in a list, of each value one: a large query repeats the samples that are loaded."""
    column = np.asarray(indices, np.int64)
    values = np.array(range(int(column.max()) + 1), object) if column.max() < len(column) else None
    shared: list[int] = column.tolist() if values is None else values[column].tolist()
    return shared


def listed(indices: Any) -> list[int]:
    """Python integers in a list."""
    if type(indices) is tuple:
        return list(indices)
    return indices if type(indices) is list else indices.tolist()
