"""The contracts between the load generator, a system under test and a benchmark.

They are Protocols: nothing here is inherited, and nothing here imports a framework. A class that
has the methods fits. Samples travel as columns: `ids` name the issued samples of one run (0, 1,
2, ... in issue order, never reused), `indices` say which samples of the library they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = "int | Sequence[int] | npt.NDArray[np.int64]"
Buffer: TypeAlias = "bytes | bytearray | memoryview | npt.NDArray[Any]"


class InputError(Exception):
    """A user's input cannot be used. The message names the file, key or sample and what to do next;
    the command line prints it alone, without a traceback, and exits with 2."""


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

    No method raises for a bad id: the run records the error, names the id and ends INVALID.
    """

    def fail(self, message: str) -> None:
        """The system cannot answer any more: end the run at once, INVALID, with this reason."""

    def complete(
        self,
        ids: Ints,
        data: Buffer | None = None,
        offsets: Sequence[int] | npt.NDArray[np.int64] | None = None,
        n_tokens: Ints | None = None,
    ) -> None:
        """These samples are answered; the clock is read on entry.

        data: the answers' bytes, one buffer for all ids; copied before return, and only if this
        run logs them. offsets: `len(ids) + 1` byte positions that cut `data` into answers; may be
        left out for one id. n_tokens: tokens generated per id, needed with `use_token_latencies`.
        """

    def first_token(
        self,
        ids: Ints,
        data: Buffer | None = None,
        offsets: Sequence[int] | npt.NDArray[np.int64] | None = None,
    ) -> None:
        """The first token of these samples is out. Once a sample, before its `complete`."""


class SystemUnderTest(Protocol):
    """What is measured.

    Optional: `warm_up(indices: Sequence[int])`, called each time that samples were loaded, with these samples, before
    the first of them is issued, clock stopped; may block. Raising ends the run, INVALID.
    """

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


class Dataset(SampleLibrary, Protocol):
    """A sample library that a batching system can read."""

    def gather(self, indices: Sequence[int]) -> Any:
        """One batch of loaded samples, in this order, in the form that `Backend.submit` takes.

        With several workers, several threads call this at once."""

    def cost(self, index: int) -> int:
        """How much work a loaded sample is (tokens, frames, windows): bucketing sorts by it."""


class Backend(Protocol):
    """A model on a runtime. Knows nothing of queries, ids or scenarios.

    A device or dtype that this machine lacks is an InputError of the constructor, never another device
    in silence. Optional: an attribute `device_name: str`, the device that is really used, read after
    `load` and printed.
    """

    def load(self) -> None:
        """Read the weights and warm up. Called once, clock stopped; may take minutes."""

    def submit(self, batch: Any) -> Future[Any]:
        """Start one batch. Called by one worker thread at a time; a synchronous backend computes
        here and returns a finished future. An exception in the future fails the run."""

    def close(self) -> None:
        """Free the device. Called once, also after an error."""


class StreamingBackend(Protocol):
    """A generative model with continuous batching. One worker thread calls all methods."""

    def load(self) -> None: ...

    def submit(self, requests: Sequence[Any]) -> None:
        """Queue requests for the next steps; returns at once."""

    def step(self) -> Iterable[tuple[int, Sequence[int], bool]]:
        """Advance every running request: (request, new token ids, finished)."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class BackendOptions:
    """What a `Backend` is built from: `Backend(options)`."""

    model: Path
    """Folder that holds the weights in their official format."""
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 0
    """Threads inside the runtime; 0 leaves the choice to the runtime."""
    max_batch: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)
    """The profile's model options (see `loadgen.harness.benchmark.Profile`)."""
