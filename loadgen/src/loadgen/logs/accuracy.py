"""`mlperf_log_accuracy.json`: the logged answers, in hexadecimal; ours and the official ones have a line each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from loadgen.logs.files import LogError, opened
from loadgen.spool import LoggedAnswer

_ADVICE = "the log may be cut off: run the accuracy test again"
_PART = 1 << 20  # characters to read at a time
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


def write_accuracy(file: TextIO, answers: Iterable[LoggedAnswer], indices: Mapping[int, int] | Any) -> None:
    """`mlperf_log_accuracy.json`, answer by answer. indices: sample index by seq_id."""
    file.write("[")
    separator = "\n"
    for answer in answers:
        tokens = ""
        if answer.first_token is not None:
            tokens += f', "token_data" : "{answer.first_token.hex().upper()}"'
        if answer.n_tokens is not None:
            tokens += f', "token_count" : {answer.n_tokens}'
        file.write(
            f'{separator}{{ "seq_id" : {answer.seq_id}, "qsl_idx" : {indices[answer.seq_id]}, '
            f'"data" : "{answer.data.hex().upper()}"{tokens} }}'
        )
        separator = ",\n"
    file.write("\n]\n")


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
