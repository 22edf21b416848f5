"""Fills an unfinished file from one address, over several connections, until nothing is missing."""

from __future__ import annotations

import contextlib
import errno
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from urllib3.exceptions import HTTPError, NameResolutionError

from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset, check_space
from loadgen.harness.assets.http import AddressError, Answer, Busy, Changed, OtherRange, ask, cause_of, in_words, pool
from loadgen.harness.assets.ranges import Parts, Span, split

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes of the whole; from any thread, one at a time."""

_CHUNK = 1 << 18  # bytes


@dataclass(frozen=True)
class Way:
    """How to download."""

    connections: int = 4
    least: int = 16 << 20
    """Bytes below which one more connection is not worth it."""
    noted: int = 4 << 20
    """Bytes of a connection after which it is noted what came: the most that it loses if the process is killed."""
    attempts: int = 5
    """In a row, none of which got further."""
    pause_s: float = 2.0
    """Before another attempt; twice as long before the next."""
    patience_s: float = 120.0
    """The longest pause, whatever the server asks for."""


class Transfer:
    """What the connections of one download share."""

    def __init__(self, asset: Asset, address: str, parts: Parts, progress: Progress, way: Way) -> None:
        self.asset, self.address, self.parts, self.progress, self.way = asset, address, parts, progress, way
        self.pool = pool(address, way.connections)
        self.takes_ranges = True
        """Until an answer has other bytes than those that were asked for."""
        self.minds_etag = True
        """Until the server named the file anew. With a checksum the names are then ignored: it may do so each time."""
        self.is_alone = True
        """Is this the only connection now? Then an answer may also be the whole file."""
        self.arrived = 0
        self.stop = threading.Event()
        self.lock = threading.Lock()

    def finish(self) -> None:
        """Get all that is missing. Raises AddressError if this address does not help, InputError if none would."""
        way, parts, left, connections = self.way, self.parts, self.way.attempts, self.way.connections
        with self.pool:
            while not parts.size or parts.missing():
                before = parts.done
                errors = self._round(connections)
                if any(isinstance(error, Changed) for error in errors):
                    parts.discard()
                    self.minds_etag = not self.asset.has_checksum
                left = way.attempts if parts.done > before else left - 1
                if any(isinstance(cause_of(error), NameResolutionError) for error in errors):
                    left = min(left, 1)  # without a network nothing gets better, and each file would take a minute
                if errors and not left:
                    why = f"{self.address}: {in_words(errors[0])}{self._kept()}"
                    raise AddressError(f"{why}. Run fetch again, or get it by hand and give its folder by --from")
                if errors:
                    connections = max(1, connections // 2)  # so many may be what it refuses
                    _pause(self.stop, self._pause_s(errors, way.attempts - left))

    def _kept(self) -> str:
        kept = self.parts.done if self.asset.has_checksum or self.parts.etag else 0
        return f"; {kept:,} bytes are kept in {self.parts.file}" if kept else ""

    def _pause_s(self, errors: list[HTTPError], failures: int) -> float:
        """What the server asks for, if that is longer than our own pause; never beyond our patience."""
        asked = max(error.wait_s if isinstance(error, Busy) else 0.0 for error in errors)
        return min(self.way.patience_s, max(asked, self.way.pause_s * (1 << max(0, failures - 1))))

    def _round(self, connections: int) -> list[HTTPError]:
        """One request a connection. Returns what went wrong and may be tried again."""
        try:
            first = self._first_answer(connections)
        except HTTPError as error:
            return [error]
        self.arrived = 0 if not first.is_range else self.parts.done
        spans = self.parts.missing()
        if first.is_range and self._can_join:
            return self._share(split(spans, connections, self.way.least), first, connections)
        return self._share([(first.start, spans[-1][1])], first, 1)

    @property
    def _can_join(self) -> bool:
        """Could anybody tell if the parts of two answers were of two files?"""
        return self.asset.has_checksum or bool(self.parts.etag and self.parts.address == self.address)

    def _first_answer(self, connections: int) -> Answer:
        """Ask for the first missing byte and those after it, and learn how long the file is."""
        parts = self.parts
        if not self._can_join:
            parts.discard()
        missing = parts.missing() if parts.size else [(0, self.asset.bytes)]
        answer = self._ask(split(missing, connections, self.way.least)[0])
        try:
            check_space(parts.file.parent, answer.total - parts.done)
            if not parts.size:
                parts.begin(answer.total, self.address, answer.etag)
            elif (self.address, answer.etag) != (parts.address, parts.etag):
                parts.describe(parts.size, self.address, answer.etag)
        except BaseException:
            answer.response.close()
            raise
        return answer

    def _ask(self, span: Span) -> Answer:
        """An answer that begins where the span does, or with the file; it is of the file whose parts are there."""
        parts = self.parts
        etag = parts.etag if parts.address == self.address and self.minds_etag else ""
        wanted = span if self.takes_ranges and (self._can_join or not parts.size) else None
        try:
            answer = ask(self.pool, self.asset, self.address, wanted, etag)
            if answer.start != span[0] and (answer.start or not self.is_alone):
                answer.response.close()
                raise OtherRange(f"asked for bytes from {span[0]:,} on, the server sent those from {answer.start:,} on")
        except OtherRange:
            self.takes_ranges = False
            raise
        is_renamed = etag and answer.etag != etag and (answer.etag or not self.asset.has_checksum)
        if parts.size and (answer.total != parts.size or is_renamed):
            answer.response.close()
            raise Changed("the file on the server has changed")
        return answer

    def _share(self, spans: list[Span], first: Answer, connections: int) -> list[HTTPError]:
        """Fill the spans, the first of them from `first`; a connection takes others until one fails it."""
        rest = iter(spans)
        errors: list[Exception] = []

        def work(span: Span | None, answer: Answer | None = None) -> None:
            try:
                while span and not self.stop.is_set():
                    self._fill(*span, answer)
                    span, answer = self._next(rest), None
            except Exception as error:
                errors.append(error)
                if not isinstance(error, HTTPError):
                    self.stop.set()

        mine = next(rest)
        others = [
            threading.Thread(target=lambda: work(self._next(rest)), name="download", daemon=True)
            for _ in range(min(connections, len(spans)) - 1)
        ]
        self.is_alone = not others
        for thread in others:
            thread.start()
        try:
            work(mine, first)
            for thread in others:
                thread.join()
        except BaseException:
            self.stop.set()  # the others end with the next bytes that come
            raise
        self.is_alone = True
        for error in errors:
            self._refuse(error)
        return [error for error in errors if isinstance(error, HTTPError)]

    def _refuse(self, error: Exception) -> None:
        """Raise what no other try would mend."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = self.parts.file.parent
            raise InputError(f"{place} is full{self._kept()}: make room, then run fetch again") from error
        if not isinstance(error, HTTPError):
            raise error

    def _next(self, spans: Iterator[Span]) -> Span | None:
        with self.lock:
            return next(spans, None)

    def _fill(self, start: int, end: int, answer: Answer | None) -> None:
        """Get these bytes, by as many answers as get further. Raises what ended one that did not."""
        while start < end and not self.stop.is_set():
            failure = None
            try:
                self._pour(answer or self._ask((start, end)), end)
            except HTTPError as error:
                failure = error
            before, start, answer = start, self._reached(start, end), None
            if start == before and not self.stop.is_set():
                raise failure or HTTPError("the server answered without any bytes")
            if failure:
                _pause(self.stop, self.way.pause_s)

    def _reached(self, start: int, end: int) -> int:
        """The first byte of the span that is missing."""
        return next((first for first, _ in self.parts.missing(start, end)), end)

    def _pour(self, answer: Answer, end: int) -> None:
        """Write the answer's bytes up to `end`, and note which came, also when it is cut."""
        at = noted = answer.start
        with contextlib.closing(answer.response), self.parts.file.open("r+b", buffering=0) as file:
            file.seek(at)
            try:
                for chunk in answer.response.stream(_CHUNK, decode_content=False):
                    if at + len(chunk) > answer.end:
                        raise HTTPError(f"the server sent more than the {answer.end:,} bytes that it announced")
                    for written in _written(file, chunk):
                        at += written
                    self._tell(len(chunk))
                    if at - noted >= self.way.noted:
                        self.parts.add(noted, at, file)
                        noted = at
                    if self.stop.is_set() or end <= at < answer.end:
                        return
            finally:
                if at > noted:
                    self.parts.add(noted, at, file)
        if at < answer.end:
            raise HTTPError(f"the connection ended after {at:,} of {answer.total:,} bytes")

    def _tell(self, size: int) -> None:
        with self.lock:
            self.arrived += size
            self.progress(min(self.arrived, self.parts.size), self.parts.size)


def _pause(stop: threading.Event, seconds: float) -> None:
    stop.wait(seconds)


def _written(file: io.FileIO, chunk: bytes) -> Iterator[int]:
    """Write it all, though the disk takes less at a time as it fills up; how much each time."""
    left = memoryview(chunk)
    while left:
        size = file.write(left)
        left = left[size:]
        yield size
