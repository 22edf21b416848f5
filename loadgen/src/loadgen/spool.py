"""The answers that are logged: copied out of the system's memory, and kept until they are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64, Buffer, Offsets

MEMORY_BYTES = 128 << 20
"""More is not kept: who adds to it writes it first. As much again is being written meanwhile."""
_LARGE = 1 << 20  # bytes of a block that is made of answers that came alone


class SpoolError(Exception):
    """An answer cannot be kept. The message names its id and says what to do."""


@dataclass(frozen=True)
class Block:
    """Answers one after another, in columns."""

    ids: I64
    data: bytes
    offsets: I64
    """Where each answer begins in the data, and where the last ends."""

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """(id, answer) of each."""
        bounds = self.offsets.tolist()
        for j, one in enumerate(self.ids.tolist()):
            yield one, self.data if len(self.ids) == 1 else self.data[bounds[j] : bounds[j + 1]]


def joined(blocks: Iterable[Block]) -> Block:
    """One block of several."""
    some = list(blocks)
    if len(some) == 1:
        return some[0]
    lengths = np.concatenate([np.diff(block.offsets) for block in some])
    ids = np.concatenate([block.ids for block in some])
    return Block(ids, b"".join(block.data for block in some), _ends(lengths))


def _ends(lengths: I64) -> I64:
    """Offsets of answers that follow each other."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


class Spool:
    """Answers in order of completion, until somebody takes them. One thread adds at a time, and one takes.

    overflow: called, by who adds, when they outgrow memory; it takes them.
    """

    def __init__(self, overflow: Callable[[], None] = lambda: None) -> None:
        self.overflow = overflow
        self.first_tokens: dict[int, bytes] = {}
        """Of samples whose first token is out, by id."""
        self._waiting: deque[Block | tuple[int, bytes]] = deque()  # whose ends two threads may use at once
        self._added = self._taken = 0  # bytes

    def add_one(self, position: int, data: Buffer) -> None:
        """Keep the answer of one id."""
        piece = data if type(data) is bytes else bytes(flat(data))
        self._waiting.append((position, piece))
        self._grown(len(piece))

    def add(self, ids: I64, wanted: npt.NDArray[np.bool_], data: Buffer, offsets: Offsets | None) -> None:
        """Keep the answers of the ids that are wanted. data, offsets: of all, as in `contracts.Responder.complete`.

        Raises SpoolError if the offsets do not fit.
        """
        block = _copied(ids, wanted, data, offsets)
        if len(block.ids):
            self._waiting.append(block)
            self._grown(len(block.data))

    def add_first_tokens(self, ids: I64, wanted: npt.NDArray[np.bool_], data: Buffer, offsets: Offsets | None) -> None:
        """As `add`, by any thread."""
        self.first_tokens.update(_copied(ids, wanted, data, offsets).pieces())

    def take(self) -> Iterator[Block]:
        """What was added until now. Each block is forgotten when the next is asked for."""
        count = len(self._waiting)
        while count:
            block, answers = self._next(count)
            count -= answers
            self._taken += len(block.data)
            yield block

    def _next(self, count: int) -> tuple[Block, int]:
        """A block that waits, or one made of answers that came alone, out of so many; and how many these were."""
        ids: list[int] = []
        pieces: list[bytes] = []
        size = 0
        while len(ids) < count and size < _LARGE:
            first = self._waiting[0]
            if isinstance(first, Block):
                if not ids:
                    self._waiting.popleft()
                    return first, 1
                break
            self._waiting.popleft()
            ids.append(first[0])
            pieces.append(first[1])
            size += len(first[1])
        lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
        return Block(np.array(ids), b"".join(pieces), _ends(lengths)), len(ids)

    def _grown(self, size: int) -> None:
        self._added += size
        if self._added - self._taken > MEMORY_BYTES:
            self.overflow()


def _copied(ids: I64, wanted: npt.NDArray[np.bool_], data: Buffer, offsets: Offsets | None) -> Block:
    """What is wanted of the caller's buffer."""
    view = flat(data)
    bounds = _bounds(offsets, ids, len(view))
    if wanted.all():
        return Block(ids.copy(), bytes(view[int(bounds[0]) : int(bounds[-1])]), bounds - bounds[0])
    lengths, starts = np.diff(bounds)[wanted], bounds[:-1][wanted]
    pieces = [view[low : low + size] for low, size in zip(starts.tolist(), lengths.tolist(), strict=True)]
    return Block(ids[wanted], b"".join(pieces), _ends(lengths))


def flat(data: Buffer) -> memoryview:
    """The bytes of a buffer."""
    view = np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")


def _bounds(offsets: Offsets | None, ids: I64, n_bytes: int) -> I64:
    """Where each answer begins and ends. Raises SpoolError if the offsets do not fit."""
    if offsets is None and len(ids) == 1:
        return np.array([0, n_bytes])
    bounds = None if offsets is None else np.asarray(offsets, np.int64)
    if bounds is None or len(bounds) != len(ids) + 1 or bounds[0] < 0 or bounds[-1] > n_bytes or _falls(bounds):
        found = "no" if bounds is None else f"{len(bounds)}"
        raise SpoolError(
            f"id {ids[0]}: an answer of {len(ids)} ids came with {found} offsets and {n_bytes} bytes: "
            f"pass {len(ids) + 1} offsets that rise and end within the buffer"
        )
    return bounds


def _falls(bounds: I64) -> bool:
    return bool((bounds[1:] < bounds[:-1]).any())
