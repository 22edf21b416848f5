"""`mlperf_log_accuracy.json`: the logged answers, in hexadecimal; ours and the official ones have a line each."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64
from loadgen.logs.files import LogError, opened
from loadgen.logs.text import Piece, hexed, text_of
from loadgen.spool import Block, joined

_ADVICE = "the log may be cut off: run the accuracy test again"
_PART = 1 << 20  # characters to read at a time
_SHORT = 128  # bytes of an answer up to which lines are made together,
_LINES = 1024  # so many at a time
_SLICE = 1 << 17  # bytes of longer ones at a time
_NO_SPACE = re.compile(r"[^ \t\r\n]")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class AccuracyEntry:
    """One logged answer."""

    seq_id: int
    qsl_idx: int
    data: bytes
    token_data: bytes | None = None
    token_count: int | None = None


class AccuracyLog:
    """`mlperf_log_accuracy.json` as it grows. indices: sample index by seq_id.

    n_tokens: of each id, where tokens are counted. first_tokens: the answers to first tokens, by id, where they are
    logged.
    """

    def __init__(
        self,
        file: BinaryIO,
        indices: npt.NDArray[np.integer[Any]],
        n_tokens: I64 | None = None,
        first_tokens: Mapping[int, bytes] | None = None,
    ) -> None:
        self._file, self._indices, self._n_tokens, self._first_tokens = file, indices, n_tokens, first_tokens
        self._separator = b"\n"
        file.write(b"[")

    def write(self, blocks: Iterable[Block]) -> None:
        """Add answers."""
        for size, alike in itertools.groupby(blocks, _size):
            if size <= _SHORT and self._first_tokens is None:
                self._write_short(joined(alike), size)
            else:
                for block in alike:
                    self._write_each(block)

    def close(self) -> None:
        """The end of the list. Does not close the file."""
        self._file.write(b"\n]\n")

    def _write_short(self, block: Block, size: int) -> None:
        """Answers of one size."""
        ids = np.asarray(block.ids, np.int64)
        for low in range(0, len(ids), _LINES):
            some = ids[low : low + _LINES]
            digits = np.frombuffer(hexed(block.data[low * size : (low + len(some)) * size]), np.uint8)
            tokens = [Piece(b', "token_count" : '), Piece(self._n_tokens[some])] if self._n_tokens is not None else []
            pieces = [
                Piece(b',\n{ "seq_id" : '),
                Piece(some),
                Piece(b', "qsl_idx" : '),
                Piece(self._indices[some].astype(np.int64)),
                Piece(b', "data" : "'),
                Piece(digits.reshape(len(some), 2 * size)),
                Piece(b'"'),
                *tokens,
                Piece(b" }"),
            ]
            self._put(text_of(len(some), pieces))

    def _write_each(self, block: Block) -> None:
        """Answers of any size, turned into hexadecimal a slice at a time, so that large ones need little memory."""
        view, bounds = memoryview(block.data), block.offsets.tolist()
        digits, begin, end = memoryview(b""), 0, 0  # of which bytes
        indices, closings = self._indices[block.ids].tolist(), self._closings(block.ids)
        for one, index, closing, low, high in zip(
            block.ids.tolist(), indices, closings, bounds, bounds[1:], strict=False
        ):
            self._put(b',\n{ "seq_id" : %d, "qsl_idx" : %d, "data" : "' % (one, index))
            while low < high:
                if low >= end:
                    begin, end = low, min(low + _SLICE, len(view))
                    digits = memoryview(hexed(view[begin:end]))
                upto = min(high, end)
                self._file.write(digits[2 * (low - begin) : 2 * (upto - begin)])
                low = upto
            self._file.write(closing)

    def _closings(self, ids: I64) -> Iterable[bytes]:
        """What follows the data of each answer."""
        if self._n_tokens is None:
            return itertools.repeat(b'" }')
        counts = self._n_tokens[ids].tolist()
        if self._first_tokens is None:
            return (b'", "token_count" : %d }' % count for count in counts)
        firsts = (hexed(self._first_tokens.get(one, b"")) for one in ids.tolist())
        pairs = zip(firsts, counts, strict=True)
        return (b'", "token_data" : "%b", "token_count" : %d }' % pair for pair in pairs)

    def _put(self, text: bytes) -> None:
        """Lines that begin with the separator of the line before, of which there may be none."""
        self._file.write(text if self._separator == b",\n" else text[1:])
        self._separator = b",\n"


def _size(block: Block) -> int:
    """Of each of its answers; more than `_SHORT` if they differ."""
    sizes = np.diff(block.offsets)
    return int(sizes[0]) if (sizes == sizes[0]).all() else _SHORT + 1


def read_accuracy(path: Path) -> Iterator[AccuracyEntry]:
    """Read an accuracy log of whatever system, an entry at a time: a JSON list, its lines broken anywhere or nowhere.

    Raises LogError for a file that is cut off or no accuracy log.
    """
    with opened(path) as file:
        for line, document in _elements(path, _Text(file)):
            yield _entry(path, line, document)


class _Text:
    """A file's text, as much of it at a time as an entry needs."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.text, self.at, self.line = "", 0, 1
        """What is in memory, where reading is in it, and the line of that place."""

    def more(self) -> bool:
        """Read on, more the more is there already; False at the end."""
        part = self._file.read(max(_PART, len(self.text) - self.at))
        self.text, self.at = self.text[self.at :] + part, 0
        return bool(part)

    def pass_to(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def next(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            found = _NO_SPACE.search(self.text, self.at)
            self.pass_to(found.start() if found else len(self.text))
            if found or not self.more():
                return found[0] if found else ""

    def take(self, character: str) -> bool:
        """Pass over this character, if it is the next."""
        if self.next() != character:
            return False
        self.pass_to(self.at + 1)
        return True

    def element(self) -> Any:
        """The next value. Raises ValueError if it is none, or cut off."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except ValueError:
                if not self.more():
                    raise
            else:
                self.pass_to(end)
                return value


def _elements(path: Path, text: _Text) -> Iterator[tuple[int, Any]]:
    """(line, value) of each element of a JSON list."""
    if not text.take("["):
        raise LogError(f"{path}:{text.line}: not an accuracy log, which begins with '[', or cut off at its beginning")
    expected = not text.take("]")
    while expected:
        text.next()
        line = text.line
        try:
            value = text.element()
        except ValueError as error:
            raise LogError(f"{path}:{line}: not an accuracy log entry ({error}); {_ADVICE}") from error
        yield line, value
        expected = text.take(",")
        if not expected and not text.take("]"):
            raise LogError(f"{path}:{text.line}: neither ',' nor ']' follows an entry; {_ADVICE}")


def _entry(path: Path, line: int, document: Any) -> AccuracyEntry:
    try:
        token_data = document.get("token_data")
        return AccuracyEntry(
            document["seq_id"],
            document["qsl_idx"],
            bytes.fromhex(document["data"]),
            None if token_data is None else bytes.fromhex(token_data),
            document.get("token_count"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise LogError(f"{path}:{line}: not an accuracy log entry ({what}); {_ADVICE}") from error
