"""A one-way pipe of 64-bit words in shared memory: one process writes, another reads. Linux.

The memory has no name (memfd), so nothing is left behind whoever is killed, and a container's small
/dev/shm does not limit it. Two kernel counters (eventfd) say how many bytes were written and how many were read
again: they wake a sleeper, lose no wake-up, and order the accesses to memory on every processor.
"""

from __future__ import annotations

import mmap
import os
import select
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.contracts import InputError

WORD = 8  # bytes; the counters count multiples of it
_LOOK_MS = 500  # how often to look whether the other process lives: a child of its own may hold the sentinel open

I64 = npt.NDArray[np.int64]


class PeerGone(Exception):
    """The other process ended, and everything that it had written is read."""


@dataclass(frozen=True)
class Ring:
    """What both ends share. Travels to a child as an argument of its `Process`."""

    size: int
    """Bytes, a multiple of `WORD`."""
    memory: int
    written: int
    freed: int

    @classmethod
    def make(cls, size: int) -> Ring:
        """Raises InputError where the system has no memfd and eventfd."""
        if sys.platform != "linux":
            raise InputError("worker processes need Linux: run in this process instead, with --worker-kind thread")
        size = max(mmap.PAGESIZE, size // mmap.PAGESIZE * mmap.PAGESIZE)
        memory = os.memfd_create("loadgen-ring")
        os.truncate(memory, size)
        return cls(size, memory, os.eventfd(0), os.eventfd(0))

    def __reduce__(self) -> Any:
        from multiprocessing.reduction import DupFd  # Windows has none, and may import this module

        return _received, (self.size, *(DupFd(fd) for fd in (self.memory, self.written, self.freed)))

    def __del__(self) -> None:
        """The last writer or reader is gone: nobody can use a descriptor that now means something else."""
        for fd in (self.memory, self.written, self.freed):
            os.close(fd)


def _received(size: int, *fds: Any) -> Ring:
    return Ring(size, *(fd.detach() for fd in fds))


class _Counter:
    """One eventfd, seen from the side that takes from it. peer: stop waiting when this process ends."""

    def __init__(self, fd: int, peer: BaseProcess | None) -> None:
        self._fd, self._peer = fd, peer
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        if peer is not None:
            self._poll.register(peer.sentinel, select.POLLIN)

    def take(self) -> int:
        """What was added since the last call; waits until something was. Raises PeerGone."""
        if self._peer is not None:
            while not self.waits(_LOOK_MS):
                if not self._peer.is_alive() and not self.waits(0):  # its last words may lie between the two looks
                    raise PeerGone
        return os.eventfd_read(self._fd)

    def waits(self, timeout_ms: int) -> bool:
        """Would `take` return at once, or within this time?"""
        ready = [fd for fd, _ in self._poll.poll(timeout_ms)]
        if ready and self._fd not in ready:
            time.sleep(0.001)  # the peer's sentinel: it is about to be gone
        return self._fd in ready


class Writer:
    """The end that writes. For one thread at a time."""

    def __init__(self, ring: Ring, peer: BaseProcess | None = None) -> None:
        self._view = memoryview(mmap.mmap(ring.memory, ring.size))
        self._ring, self._size, self._written = ring, ring.size, ring.written
        self._freed = _Counter(ring.freed, peer)
        self._at, self._free = 0, ring.size
        self.torn = False
        """An exception interrupted a long write: what follows cannot be understood."""

    def room(self) -> int:
        """How many bytes can be written without waiting."""
        if self._freed.waits(0):
            self._free += self._freed.take()
        return self._free

    def put(self, data: bytes) -> None:
        """Write a short record, at once if there is room in one piece."""
        at, length = self._at, len(data)
        if length <= self._free and at + length < self._size:
            self._view[at : at + length] = data
            self._at = at + length
            self._free -= length
            os.eventfd_write(self._written, length)
        else:
            self.write(data)

    def write(self, data: bytes | memoryview) -> None:
        """Write any amount, padded to whole words; waits for the reader where the ring is full. Raises PeerGone."""
        flat = memoryview(data)
        flat = flat.cast("B") if flat.nbytes else flat[:0]  # an empty view cannot be cast
        whole = len(flat) // WORD * WORD
        self.torn = True
        self._fill(flat[:whole])
        self._fill(memoryview(bytes(flat[whole:]) + bytes(-len(flat) % WORD)))
        self.torn = False

    def _fill(self, rest: memoryview) -> None:
        while rest:
            if not self._free:
                self._free = self._freed.take()
            length = min(len(rest), self._free, self._size - self._at)
            self._view[self._at : self._at + length] = rest[:length]
            self._at = (self._at + length) % self._size
            self._free -= length
            os.eventfd_write(self._written, length)
            rest = rest[length:]


class Reader:
    """The end that reads. For one thread."""

    def __init__(self, ring: Ring, peer: BaseProcess | None = None) -> None:
        self._words: I64 = np.frombuffer(mmap.mmap(ring.memory, ring.size), np.int64)
        self._ring, self._freed = ring, ring.freed
        self._written = _Counter(ring.written, peer)
        self._at = self._ready = self._unreturned = 0  # words

    def ready(self) -> I64:
        """A view of the words that lie ready in one piece, at least one; `skip` those you used."""
        if not self._ready:
            self._ready = self._written.take() // WORD
        return self._words[self._at : self._at + self._ready]

    def skip(self, count: int) -> None:
        """Give the next words' room back to the writer, a quarter of the ring at a time."""
        self._at = (self._at + count) % len(self._words)
        self._ready -= count
        self._unreturned += count
        if self._unreturned * 4 >= len(self._words):
            os.eventfd_write(self._freed, self._unreturned * WORD)
            self._unreturned = 0

    def take(self, count: int) -> I64:
        """Exactly so many words, copied; waits for those that are missing. Raises PeerGone."""
        found = np.empty(count, np.int64)
        have = 0
        while have < count:
            piece = self.ready()[: count - have]
            found[have : have + len(piece)] = piece
            have += len(piece)
            self.skip(len(piece))
        return found
