"""Which bytes of an unfinished download are there. It is written down as they come: a killed process loses little."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from loadgen.harness.assets.files import whole_file

Span = tuple[int, int]
"""The first byte, and the one after the last."""


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same bytes as the fewest spans, in order."""
    made: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        else:
            made.append((start, end))
    return made


def gaps(have: Sequence[Span], start: int, end: int) -> list[Span]:
    """What of start..end is not in `have`, which is `joined`."""
    made = []
    for first, last in [*have, (end, end)]:
        if start < min(first, end):
            made.append((start, min(first, end)))
        start = max(start, last)
    return made


def split(spans: Sequence[Span], count: int, least: int) -> list[Span]:
    """Spans of about the same length, `count` together if that leaves each `least` bytes; never across a gap."""
    share = max(least, -(-sum(end - start for start, end in spans) // count), 1)
    made: list[Span] = []
    for start, end in spans:
        pieces = max(1, round((end - start) / share))
        cuts = [start + (end - start) * piece // pieces for piece in range(pieces + 1)]
        made += pairwise(cuts)
    return made


class Parts:
    """An unfinished file, and beside it `NAME.ranges`: first whose bytes these are, then a line for each span.

    The list only grows, and never says more than is on the disk. Any thread may call `add`.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._list = file.with_name(f"{file.name}.ranges")
        self._lock = threading.Lock()
        self.size, self.address, self.etag = 0, "", ""
        """As the server said them; size 0: nothing is there."""
        self.have: list[Span] = []
        self._is_torn = False
        """Does the list end within a line?"""
        try:
            head, *lines, torn = self._list.read_text().split("\n")
            size, address, etag = json.loads(head)
            have = joined((int(start), int(end)) for start, end in map(str.split, lines))
            if file.stat().st_size != size:
                return
        except (OSError, ValueError):  # there is none, or it is not such a list: nothing is there
            return
        self.size, self.address, self.etag, self.have, self._is_torn = size, address, etag, have, bool(torn)

    @property
    def done(self) -> int:
        return sum(end - start for start, end in self.have)

    def missing(self, start: int = 0, end: int | None = None) -> list[Span]:
        return gaps(self.have, start, self.size if end is None else end)

    def begin(self, size: int, address: str, etag: str) -> None:
        """Make room for a file of which nothing is there."""
        self.discard()
        with self.file.open("wb") as file:
            file.truncate(size)
        self.describe(size, address, etag)

    def describe(self, size: int, address: str, etag: str) -> None:
        """Say whose the bytes are from now on; those that are there stay."""
        self.size, self.address, self.etag = size, address, etag
        with whole_file(self._list) as part:
            self._is_torn = False
            lines = [json.dumps([size, address, etag]), *(f"{start} {end}" for start, end in self.have)]
            part.write_text("".join(f"{line}\n" for line in lines))

    def add(self, start: int, end: int, written: io.FileIO) -> None:
        """These bytes were written to the file through this handle: first they go to the disk, then into the list."""
        os.fsync(written.fileno())
        line = f"{start} {end}\n".encode()
        with self._lock:
            if self._is_torn:
                self.describe(self.size, self.address, self.etag)
            with self._list.open("ab", buffering=0) as file:
                before = file.tell()
                if file.write(line) < len(line):
                    file.truncate(before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._list))
            self.have = joined([*self.have, (start, end)])

    def discard(self) -> None:
        """Forget the bytes that are there."""
        self._list.unlink(missing_ok=True)  # first: a file without its list is nothing
        self.file.unlink(missing_ok=True)
        self.size, self.have = 0, []
