"""The contracts between the load generator, a system under test and a benchmark.

They are Protocols: nothing here is inherited, and nothing here imports a framework. A class that has the methods fits.
Samples travel as columns: `ids` name the issued samples of one run (0, 1, 2, ... in issue order, never reused),
`indices` say which samples of the library they are. `B` stands for a benchmark's batch, `O` for what its backends
return.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from loadgen.errors import InputError as InputError  # part of the contracts

I64: TypeAlias = "npt.NDArray[np.int64]"
Ints: TypeAlias = "int | Sequence[int] | I64"
Buffer: TypeAlias = "bytes | bytearray | memoryview | npt.NDArray[Any]"
Offsets: TypeAlias = "Sequence[int] | I64"

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
O = TypeVar("O")  # noqa: E741 - outputs, as in the docstrings
O_contra = TypeVar("O_contra", contravariant=True)


class SampleLibrary(Protocol):
    """The samples that a run draws from."""

    @property
    def name(self) -> str: ...

    @property
    def total_count(self) -> int:
        """How many samples there are; indices run from 0 to `total_count - 1`."""

    @property
    def performance_count(self) -> int:
        """How many samples fit in memory at once; at most this many are loaded together."""

    def load(self, indices: Sequence[int]) -> None:
        """Bring these samples into memory. Called by the run's thread, clock stopped; may block."""

    def unload(self, indices: Sequence[int]) -> None:
        """Let these samples go. Called by the run's thread, clock stopped, once a load."""


class Responder(Protocol):
    """Given by the run to the system: how answers come back. Any thread may call it.

    No method raises for a bad id: the run records the error, names the id and ends INVALID. at_ns: when it was, on the
    run's clock, of all ids or of each, if the caller has read it; None: now.
    """

    @property
    def keep(self) -> npt.NDArray[np.bool_] | None:
        """Of each id, does the run log its answer? None: it logs none, and reads no data."""

    def fail(self, message: str, details: str = "") -> None:
        """The system cannot answer any more: end the run at once, INVALID, with this reason.

        details: a traceback, or what else helps to find the cause; kept beside the results."""

    def complete(
        self,
        ids: Ints,
        data: Buffer | None = None,
        offsets: Offsets | None = None,
        n_tokens: Ints | None = None,
        at_ns: Ints | None = None,
    ) -> None:
        """These samples are answered.

        data: the answers' bytes, one buffer for all ids; copied before return, and only if this
        run logs them. offsets: `len(ids) + 1` byte positions that cut `data` into answers; may be
        left out for one id. n_tokens: tokens generated per id, needed with `use_token_latencies`.
        """

    def first_token(
        self, ids: Ints, data: Buffer | None = None, offsets: Offsets | None = None, at_ns: Ints | None = None
    ) -> None:
        """The first token of these samples is out. Once a sample, before its `complete`."""


class SystemUnderTest(Protocol):
    """What is measured. It may also be a `WarmsUp`."""

    @property
    def name(self) -> str: ...

    def start(self, respond: Responder) -> None:
        """Called once before the first samples are loaded, clock stopped; may block."""

    def issue(self, ids: Ints, indices: Ints) -> None:
        """Take one query. Called by the issuing thread, clock running: return soon.

        SingleStream gives one plain int each; MultiStream and Server a sequence of ints; Offline
        one int64 array. Raising ends the run, INVALID.
        """

    def flush(self) -> None:
        """No more queries will come in this series: send what was held back. May block."""

    def stop(self) -> None:
        """The run is over, also after an error: free what `start` took. Called once."""


@runtime_checkable
class WarmsUp(Protocol):
    """A system that wants to see the loaded samples before the clock runs."""

    def warm_up(self, indices: Sequence[int]) -> None:
        """Called by the run's thread each time that samples were loaded, with these, before the first of them is
        issued, clock stopped; may block. Raising ends the run, INVALID."""


Figures: TypeAlias = "Mapping[str, float | npt.NDArray[Any]]"
"""By name: numbers stand in the record of a run, columns in a file beside its logs."""


@runtime_checkable
class SizesAnswers(Protocol):
    """A dataset that says how large its answers are: a run looks for room for accuracy logs before its first test."""

    @property
    def answer_bytes(self) -> int:
        """Of each."""
        ...


@runtime_checkable
class Measures(Protocol):
    """A system that knows more of a run than when its answers came."""

    def measured(self) -> Figures:
        """Figures for the record of the run. Called once, after `stop`; empty: none of this run.

        The report draws those that `loadgen.harness.serving.flow.measured` names."""


class Dataset(SampleLibrary, Protocol[B_co]):
    """A sample library that a batching system can read: `Class(folder, **options)`, the profile's folder with `data/`
    and `model/` below it (a tokenizer lies with the model)."""

    def gather(self, indices: I64) -> B_co:
        """One batch of loaded samples, in this order, in the form that the backends take.

        Clock running; with several workers, several threads call this at once."""

    def costs(self, indices: I64) -> I64:
        """How much work each loaded sample is (tokens, frames, pairs, windows): batches are made by it.

        Called by the run's thread once a load, clock stopped."""


@dataclass(frozen=True)
class Loaded:
    """What a backend really runs on, for the record of a run."""

    device: str
    """As a person calls it, such as `cuda:0 (NVIDIA H200)`."""
    dtype: str
    """The number format that is computed in."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the runtime's packages."""


class Backend(Protocol[B_contra, O]):
    """A model on a runtime: `Class(BackendOptions)`. Knows nothing of queries, ids or scenarios.

    The constructor raises InputError for a device or dtype that this machine does not have, and never takes another.
    """

    def load(self) -> Loaded:
        """Read the weights and warm up. Called once, clock stopped; may take minutes."""

    def submit(self, batch: B_contra) -> Future[O]:
        """Start one batch. Called by one worker thread at a time, which may hold a second batch meanwhile, so that its
        copies overlap the computing of the first. A synchronous backend computes here and returns a finished future
        (`loadgen.harness.serving.finished`). An exception, here or in the future, fails the run."""

    def close(self) -> None:
        """Free the device. Called once, also after an error."""


class Answers(NamedTuple):
    """One buffer of all answers of a batch, as `Responder.complete` takes it."""

    data: Buffer
    offsets: Offsets
    """Byte positions that cut `data`: one more than there are answers."""
    n_tokens: Ints | None = None


class Encode(Protocol[O_contra]):
    """`encode` of a benchmark's module `postprocess`: a batch's outputs as the bytes that are logged and scored.

    Several worker threads call it at once, clock running."""

    def __call__(self, outputs: O_contra, indices: I64, dataset: Any, /) -> Answers:
        """indices: the batch's samples, in order. dataset: the benchmark's own class."""


class Tokens(NamedTuple):
    """What one step of a `TokenBackend` brought. Row i belongs to request `requests[i]`."""

    requests: I64
    """Each at most once."""
    ids: I64
    """The new tokens of all rows, one row after another; a step may bring none, one or several for a request."""
    offsets: I64
    """Positions that cut `ids`: one more than there are rows."""
    finished: npt.NDArray[np.bool_]
    """Is this the request's last step?"""


@runtime_checkable
class TokenBackend(Protocol[B_contra]):
    """A generative model with continuous batching: `Class(BackendOptions)`. One worker thread calls all methods."""

    def load(self) -> Loaded:
        """See `Backend`."""

    def room(self) -> int:
        """How many requests it would take now, by the memory or connections that are left; asked before `add`.

        A number of requests, not of tokens: only the backend knows what its cache holds, and a remote one has no
        cache that it could tell of."""

    def add(self, requests: I64, batch: B_contra) -> None:
        """Begin these requests, at most `room()`, with the next step. Numbers are unique while they run."""

    def step(self, timeout_s: float) -> Tokens:
        """Advance what runs, and say what came out; nothing after so long if nothing did. An exception fails the run:
        RequestError names the request that it is about."""

    def close(self) -> None:
        """See `Backend`."""


class RequestError(RuntimeError):
    """A `TokenBackend` failed on one request."""

    def __init__(self, request: int, message: str) -> None:
        super().__init__(message)
        self.request = request


@dataclass(frozen=True)
class Entry:
    """One logged answer, as an accuracy metric reads it."""

    index: int
    data: bytes
    n_tokens: int | None = None
    first_token: bytes | None = None


CONTACT_SHEET = "contact_sheet.jpg"
"""A picture of some answers, in the folder of an accuracy test: see `Scoring.output`."""


@dataclass(frozen=True)
class Scoring:
    """Where a score is computed, which metrics with networks of their own need, and how a log is to be read."""

    folder: Path
    """The profile's, with `data/` and `model/` below it."""
    device: str = "cpu"
    output: Path | None = None
    """The accuracy log's folder, for files that the rules want beside the score, and for a picture of some answers,
    `CONTACT_SHEET`, which the report shows; None: write none."""
    dtype: str = ""
    """Of the log's numbers, where another system wrote it and somebody says so; empty: the benchmark's own.

    This and what follows reach only a metric whose benchmark lists them (`Benchmark.scoring`)."""
    transposed: bool = False
    """Are the log's answers laid out the other way round?"""
    max_examples: int | None = None
    """Score only the first so many."""
    partial: bool = False
    """Is a part of the samples scored, as in the log of a compliance test? Reaches every metric."""
    reviewed: tuple[int, ...] = ()
    """Samples whose answers a submission of the round shows; empty: the round names none. Reaches every metric."""


@dataclass(frozen=True)
class BackendOptions:
    """What a `Backend` or `TokenBackend` is built from: `Backend(options)`."""

    model: Path
    """Folder that holds the weights in their official format."""
    devices: tuple[str, ...] = ("cpu",)
    """`cpu`, `cuda` or `cuda:N`; several: one model spread over all of them."""
    dtype: str = "float32"
    threads: int = 0
    """Threads inside the runtime; 0 leaves the choice to the runtime."""
    max_batch: int = 1
    max_cost: int | None = None
    """The most that a batch's costs come to (see `Dataset.costs`); None: whatever `max_batch` samples cost."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """The profile's model options (see `loadgen.harness.benchmark.Profile`)."""

    @property
    def device(self) -> str:
        """The first device; the only one, unless the backend spreads a model."""
        return self.devices[0]
