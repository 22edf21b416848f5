"""Threads that a submission lends to a test: the official `RegisterIssueQueryThread`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

_PATIENCE_S = 10.0  # how long the official StartTest waits for threads


class LentThreads:
    """Threads that wait in `lend` for a test, issue its Server queries, and return when it has ended."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lent: list[queue.SimpleQueue[Callable[[], None] | None]] = []

    def lend(self) -> None:
        """Called by each thread, before or shortly after the test starts."""
        functions: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        with self._changed:
            self._lent.append(functions)
            self._changed.notify_all()
        while (function := functions.get()) is not None:
            function()

    def call(self, count: int, function: Callable[[], None]) -> None:
        """Call the function once on each of `count` lent threads. Raises RuntimeError if they do not come."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._lent) >= count, _PATIENCE_S)
            lent = list(self._lent)
        if len(lent) != count:
            raise RuntimeError(
                "Mismatch between settings and number of registered threads: server_num_issue_query_threads is "
                f"{count}, RegisterIssueQueryThread was called on {len(lent)}. Call it on {count} threads before "
                "StartTest, or set the field to 0"
            )
        returned: queue.SimpleQueue[None] = queue.SimpleQueue()

        def lane() -> None:
            try:
                function()
            finally:
                returned.put(None)

        for functions in lent:
            functions.put(lane)
        for _ in lent:
            returned.get()

    def give_back(self) -> None:
        """The test has ended."""
        with self._changed:
            for functions in self._lent:
                functions.put(None)
            self._lent.clear()
