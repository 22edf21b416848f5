"""Files that are there whole or not at all, and places that one process has to itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` at the end: what stops a run leaves no half file there."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def above(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def sync(file: Path) -> None:
    """Return when the file is on the disk: before its name says that it is whole, in case the power fails."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


@contextmanager
def locked(place: Path, waits: Callable[[], None]) -> Iterator[None]:
    """Hold a folder, or a file that is made for it: whoever else wants it waits. The end of a process frees it.

    waits: called before waiting. Without effect on a file system without locks, as some over a network.
    """
    import fcntl

    handle = os.open(place, os.O_RDONLY | (0 if place.is_dir() else os.O_CREAT))
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
    finally:
        os.close(handle)
