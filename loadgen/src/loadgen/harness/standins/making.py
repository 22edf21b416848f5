"""Making stand-ins for official files: once, whole, and said on stderr where it takes long."""

from __future__ import annotations

import errno
import hashlib
import importlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Concatenate, Generic, ParamSpec

from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.files import locked, whole_file

P = ParamSpec("P")
STAMP = "made-from"
_UNFINISHED = "unfinished"


def provide(path: Path, options: BackendOptions) -> Path:
    """The weights file `path`, made first if it is missing and the profile has a maker (`Profile.weights`).

    So a run makes only what its backend reads. Workers may all call it: one makes the file, the others wait. A file
    that is still missing is the reader's to report.
    """
    module, _, function = str(options.extra.get("weights", "")).partition(":")
    if module and path.parent.is_dir() and not path.is_file():
        with locked(path.parent, partial(tell, f"waiting for {path}, which another worker or run makes")):
            if not path.is_file():
                getattr(importlib.import_module(module), function)(path)
    return path


def made_once(folder: Path, version: str, make: Callable[[Path], None]) -> None:
    """Call `make(folder)`, unless an earlier call with this version went through: a stamp in the folder says so.

    What another version left there is `make`'s to replace or remove. Two runs at once make it once. Raises InputError
    for a folder with files that no such call made, as official ones: they would be lost.
    """
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text() == version:
        return
    waits = partial(tell, f"waiting for the files of {folder}, which another run makes")
    with writing(folder), locked(folder, waits):
        if stamp.is_file() and stamp.read_text() == version:
            return
        if not stamp.is_file():
            _check_own(folder)
        stamp.write_text(_UNFINISHED)  # half of a new version is not the old one either
        make(folder)
        with whole_file(stamp) as part:
            part.write_text(version)


def _check_own(folder: Path) -> None:
    places = (folder / "data", folder / "model")
    foreign = next((file for place in places for file in place.rglob("*") if file.is_file()), None)
    if foreign:
        raise InputError(
            f"{foreign} was not made by this profile, which would replace it: give the profile a folder of its own by "
            "--data, or say --profile full if these are official files"
        )


def version_of(*files: Path) -> str:
    """A checksum of the files that something is made from, sources included."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def tell(line: str) -> None:
    """Say it at once, apart from a command's output."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make a folder, for files that are written inside. Raises InputError if it, or one of them, cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST):
            raise
        raise InputError(
            f"{folder} cannot be written ({error.strerror}): mend that, or name another folder by --data"
        ) from error


def check_space(path: Path, size: int) -> None:
    """Raise InputError if a file of this many bytes does not fit on the disk, with 5 % to spare."""
    free = shutil.disk_usage(path.parent).free
    if free < 1.05 * size:
        raise InputError(
            f"{path}: needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: make room, "
            "or name a folder on another disk by --data"
        )


@dataclass(frozen=True)
class Writer(Generic[P]):
    """How an official file is written."""

    package: str
    """That the function needs, or without which the file is of no use."""
    write: Callable[Concatenate[Path, P], None]
    """Called with the path, and what the file is made of."""


def is_installed(writer: Writer[P]) -> bool:
    """Is the writer's package there?"""
    return importlib.util.find_spec(writer.package) is not None


def find_writer(writers: Mapping[str, Writer[P]], path: Path) -> Writer[P]:
    """The one for a file of this name. Raises InputError for an unknown name, or a package that is not installed.

    By itself it is for a maker whose arguments are expensive: ask before they are made.
    """
    if path.name not in writers:
        raise InputError(f"{path.name} is not a weights file of this benchmark: choose {', '.join(writers)}")
    writer = writers[path.name]
    if not is_installed(writer):
        raise InputError(f"{path.name} is made with the package {writer.package}, which is not installed")
    return writer


def write_with(writers: Mapping[str, Writer[P]], path: Path, *args: P.args, **kwargs: P.kwargs) -> None:
    """Write the file by the writer for its name, whole or not at all. Raises InputError as `find_writer`."""
    writer = find_writer(writers, path)
    with writing(path.parent), whole_file(path) as part:
        writer.write(part, *args, **kwargs)
