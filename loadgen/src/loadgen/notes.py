"""What a run notes in words while it goes on: errors, and entries of the detail log."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_ERRORS = 100  # kept in words; the rest are counted


class Errors:
    """What went wrong, in order; any thread may add."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.details: list[str] = []
        """Tracebacks, of the messages that have one."""
        self.count = 0
        self._lock = threading.Lock()

    @property
    def more(self) -> str:
        """Says how many are not kept in words; empty: all are."""
        more = self.count - len(self.messages)
        return f"and {more} more errors, of which no words are kept" if more else ""

    def add(self, message: str, details: str = "") -> None:
        with self._lock:
            self.count += 1
            if len(self.messages) < MAX_ERRORS:
                self.messages.append(message)
            if details and len(self.details) < MAX_ERRORS:
                self.details.append(details)


@dataclass(frozen=True)
class DetailEntry:
    """One line of the detail log."""

    key: str
    value: Any
    time_ns: int = 0
    """Since the log was started."""
    is_error: bool = False
    is_warning: bool = False


@dataclass
class DetailLog:
    """The detail log of a run, in memory."""

    now_ns: Callable[[], int]
    start_ns: int
    entries: list[DetailEntry] = field(default_factory=list)
    unlisted_errors: int = 0
    """Errors without an entry of their own."""
    flush: Callable[[], None] = lambda: None
    """Writes what is new. Called while no clock runs."""

    def add(self, key: str, value: Any, *, error: bool = False, warning: bool = False) -> None:
        self.entries.append(DetailEntry(key, value, self.now_ns() - self.start_ns, error, warning))

    @property
    def errors(self) -> int:
        return sum(e.is_error for e in self.entries) + self.unlisted_errors

    @property
    def warnings(self) -> int:
        return sum(e.is_warning for e in self.entries)
