"""Files that are there whole or not at all, and places that one process has to itself."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from loadgen.errors import InputError


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


@contextmanager
def owned(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder that only one process may use at a time. Raises InputError that names the one which has it.

    what: the option by which another folder is chosen. On a file system without locks nobody is refused.
    """
    import fcntl

    place = folder / ".in-use"
    with place.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"{folder} is in use by {file.read().strip() or 'another run'}: wait for it, or choose another {what}"
            ) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            place.unlink(missing_ok=True)


@contextmanager
def saving(file: Path) -> Iterator[None]:
    """What a run measured goes to a file inside. A full disk or a lost folder is an InputError that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.EIO):
            raise
        lost = error.errno == errno.ENOENT
        raise InputError(
            f"{file} cannot be written ({'its folder is gone' if lost else error.strerror}): what was written before "
            "is still there; make room or name another folder by --output, and run what is missing"
        ) from error
