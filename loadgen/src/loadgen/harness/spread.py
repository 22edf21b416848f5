"""Work that takes minutes in one process, such as a score of thousands of answers, on all processors."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from typing import TypeVar

from loadgen.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

FEW = 1000
"""Items for which new processes, a second to begin, are not worth their while."""
MOST = 16
"""Processes at the most: more would take memory, and wait for the one that reads the items."""
_TOGETHER = 16  # items that a process gets at once; Ctrl-C waits for them


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(work: Callable[[T], R], items: Iterable[T], processes: int = 0, few: int = FEW) -> Iterator[R]:
    """What `work` makes of each item, in their order: of many, in several processes, which read ahead only a little.

    work: a function of a module, which new processes import; they are not forked, because this one may hold a GPU.
    processes: 0 means as many as there are processors. What `work` raises is raised here.
    """
    rest = iter(items)
    first = list(islice(rest, few))
    processes = processes or min(MOST, processors())
    if len(first) < few or processes < 2:
        yield from map(work, chain(first, rest))
        return
    together: deque[Future[list[R]]] = deque()
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin)
    try:
        every = chain(first, rest)
        while some := list(islice(every, _TOGETHER)):
            together.append(pool.submit(_all, work, some))
            if len(together) > 2 * processes:
                yield from together.popleft().result()
        while together:
            yield from together.popleft().result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process that scored was ended, as the system does where memory runs out: free some, then score the "
            "log by the command accuracy"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _all(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [work(item) for item in items]


def _begin() -> None:
    """Ctrl-C is for the process that asked, and where that ends, however it does, this one does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    asked = parent_process()
    assert asked
    asked.join()
    os._exit(1)
