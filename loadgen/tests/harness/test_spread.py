"""Work on all processors: in order, in other processes where there is much, and over at once when it fails."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadgen.contracts import InputError
from loadgen.harness.spread import each

WORK = """
import os, signal

def place(number):
    return number, os.getpid()

def refuse(number):
    if number == 30:
        raise ValueError(f"sample {number}")
    return number

def die(number):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that other processes can import, as they cannot import this one."""
    (tmp_path / "work_of_spread.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "work_of_spread", raising=False)
    return importlib.import_module("work_of_spread")


def test_many_are_worked_on_in_other_processes_and_come_in_order(work: Any) -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(300):
            read.append(number)
            yield number

    found = each(work.place, items(), processes=2, few=20)
    first = next(found)
    assert len(read) <= 100, "progress is told by what was read"
    numbers, places = zip(first, *found, strict=True)
    assert numbers == tuple(range(300))
    assert os.getpid() not in places


@pytest.mark.parametrize(("count", "processes"), [(19, 2), (300, 1)])
def test_few_items_or_one_processor_need_no_other_process(work: Any, count: int, processes: int) -> None:
    assert list(each(work.place, range(count), processes, few=20)) == [(n, os.getpid()) for n in range(count)]


def test_what_work_raises_is_raised_here(work: Any) -> None:
    with pytest.raises(ValueError, match="sample 30"):
        list(each(work.refuse, range(300), processes=2, few=20))


def test_a_process_that_is_killed_is_told(work: Any) -> None:
    with pytest.raises(InputError, match="where memory runs out"):
        list(each(work.die, range(300), processes=2, few=20))


SLOW = """
import time
from loadgen.harness.spread import each

if __name__ == "__main__":
    for number, _ in enumerate(each(time.sleep, [0.05] * 10_000, processes=2)):
        if number == 0:
            print("begun", flush=True)
"""


@pytest.fixture
def slow() -> Iterator[subprocess.Popen[str]]:
    """A process that spreads minutes of work, and has begun. Its output ends when the last of its processes does."""
    command, pipe = [sys.executable, "-c", SLOW], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "begun\n"
        yield child
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def test_ctrl_c_ends_it_at_once_and_without_the_others_tracebacks(slow: subprocess.Popen[str]) -> None:
    """As a terminal does it: all processes of the group get the signal."""
    os.killpg(slow.pid, signal.SIGINT)
    _, errors = slow.communicate(timeout=15)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_no_process_outlives_the_one_that_asked(slow: subprocess.Popen[str]) -> None:
    slow.kill()
    slow.communicate(timeout=15)
