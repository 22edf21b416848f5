"""Unpacks tar and zip archives: whole or not at all, and never outside the folder that it is told."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from loadgen.contracts import InputError
from loadgen.harness.assets.asset import check_space
from loadgen.harness.files import locked


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    opened: Callable[[], IO[bytes] | None] | None
    """Its content; None: it is a folder. A link has the content of what it leads to in the archive."""


def extract(archive: Path, folder: Path) -> None:
    """Make `folder` from the archive, if it is not there: it gets its name when all is in it.

    Raises InputError if the archive is damaged, or has a path or a link that leads out, or a device.
    Links become copies: nothing is ever written through one.
    """
    waits = f"another process is unpacking {archive}: waiting for it"
    with _readable(archive), locked(archive, lambda: print(waits, file=sys.stderr, flush=True)):
        if folder.exists():
            return
        for left in folder.parent.glob(f"{glob.escape(folder.name)}.*.part"):  # by a process that was killed
            shutil.rmtree(left)
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        try:
            part.mkdir(parents=True)
            for member in _members(archive):
                _write(member, part)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def read(archive: Path, name: str) -> bytes:
    """The content of one file in the archive. Raises InputError if it is damaged or has no such file."""
    with _readable(archive):
        for member in _members(archive):
            if PurePosixPath(member.name) == PurePosixPath(name):
                return _content(member).read()
        raise KeyError(f"it has no {name}")


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    damage = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError)
    try:
        yield
    except InputError:
        raise
    except (*damage, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        why = str(error).partition("\n")[0]
        raise InputError(f"{archive} is damaged ({why}): fetch it again") from error


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield from (_zip_member(archive, zipped, info) for info in zipped.infolist())
    else:
        with tarfile.open(archive) as tar:
            yield from (_tar_member(archive, tar, info) for info in tar)
            if tar.fileobj is None or tar.fileobj.tell() == tar.offset:  # no empty block came after the last member
                raise EOFError("its end is missing")


def _zip_member(archive: Path, zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16  # where Unix programs put it
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(archive, info.filename, "is neither a file nor a folder")
    _check_inside(archive, info.filename)
    return _Member(info.filename, info.file_size, None if info.is_dir() else lambda: zipped.open(info))


def _tar_member(archive: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
        raise _unsafe(archive, info.name, "is neither a file nor a folder")
    _check_inside(archive, info.name)
    return _Member(info.name, info.size, None if info.isdir() else lambda: tar.extractfile(info))


def _check_inside(archive: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise _unsafe(archive, name, "leads out of the folder")


def _unsafe(archive: Path, name: str, why: str) -> InputError:
    return InputError(f"{archive} is not unpacked: {name!r} in it {why}. Get the archive from its official source")


def _write(member: _Member, folder: Path) -> None:
    place = folder / member.name
    if member.opened is None:
        place.mkdir(parents=True, exist_ok=True)
        return
    check_space(folder, member.size)
    place.parent.mkdir(parents=True, exist_ok=True)
    with _content(member) as content, place.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def _content(member: _Member) -> IO[bytes]:
    content = member.opened() if member.opened else None
    if content is None:
        raise KeyError(f"{member.name} has no content")
    return content
