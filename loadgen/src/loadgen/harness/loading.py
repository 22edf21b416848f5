"""Loading that takes long is said, and done once where several tests want the same samples: day 23 of DLRM is 50 GB."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from loadgen.contracts import SampleLibrary

_SAID_EACH_S = 5.0


@dataclass
class _Around:
    """A library around another, of the same samples."""

    library: SampleLibrary

    @property
    def name(self) -> str:
        return self.library.name

    @property
    def total_count(self) -> int:
        return self.library.total_count

    @property
    def performance_count(self) -> int:
        return self.library.performance_count


@dataclass
class Spoken(_Around):
    """A library whose `load` says every few seconds how long it has taken so far (see `contracts.SampleLibrary`)."""

    say: Callable[[str], None]

    def load(self, indices: Sequence[int]) -> None:
        with _said(f"loading {len(indices):,} samples", self.say):
            self.library.load(indices)

    def unload(self, indices: Sequence[int]) -> None:
        self.library.unload(indices)


@dataclass
class Held(_Around):
    """A library whose samples stay in memory from one test to the next, as long as the next wants the same."""

    loaded: list[int] = field(default_factory=list)

    def load(self, indices: Sequence[int]) -> None:
        if list(indices) != self.loaded:
            self.release()
            self.library.load(indices)
            self.loaded = list(indices)

    def unload(self, indices: Sequence[int]) -> None:
        """Not yet: see `release`."""

    def release(self) -> None:
        """Let go what is loaded."""
        if self.loaded:
            self.library.unload(self.loaded)
        self.loaded = []


@contextmanager
def held(library: SampleLibrary) -> Iterator[Held]:
    """The library as a `Held`, which is released at the end."""
    kept = Held(library)
    try:
        yield kept
    finally:
        kept.release()


@contextmanager
def _said(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """By a thread of its own, which has ended when the `with` does: none of it is left when the clock runs."""
    done, began = threading.Event(), time.monotonic()

    def speak() -> None:
        while not done.wait(_SAID_EACH_S):
            say(f"{what}, for {time.monotonic() - began:.0f} s now")

    thread = threading.Thread(target=speak, name="loadgen-loading", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
