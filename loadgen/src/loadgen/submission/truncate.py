"""Accuracy logs shortened to their ends, with the hash of the whole: streamed, so that their size does not matter."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from loadgen.errors import InputError

VIEWABLE = 4096
"""Bytes that stay of each end; a shorter log stays whole."""
GAP = b"\n\n...\n\n"
_PART = 1 << 20
_HASH = re.compile(r"^hash=[\w\d]+$", re.M)


def digest(log: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    sum_ = hashlib.sha256()
    with log.open("rb") as file:
        while part := file.read(_PART):
            sum_.update(part)
    return sum_.hexdigest()


def ends(log: Path) -> bytes:
    """What is submitted of a log: the whole if it is short, else both ends."""
    size = log.stat().st_size
    with log.open("rb") as file:
        if size < VIEWABLE:
            return file.read()
        head = file.read(VIEWABLE)
        file.seek(size - VIEWABLE)
        return head + GAP + file.read(VIEWABLE)


def shorten(log: Path, to: Path) -> str:
    """Write what is submitted of a log; returns the hash of the whole."""
    hash_ = digest(log)
    part = to.with_name(f"{to.name}.{os.getpid()}.part")
    part.write_bytes(ends(log))
    part.replace(to)
    return hash_


def accuracy_text(said: str, hash_: str) -> str:
    """accuracy.txt with the hash as its last line, in the place of an earlier one."""
    kept = _HASH.sub("", said).rstrip("\n")
    return f"{kept}\nhash={hash_}\n".lstrip("\n")


def has_hash(said: str) -> bool:
    return bool(_HASH.search(said))


def shorten_tree(root: Path, backup: Path) -> Iterator[Path]:
    """Shorten every accuracy log below a submission that is not yet; yields those that were.

    Of results/ all, of compliance/ TEST01's. Logs that have their hash and are short are left alone. backup: gets the
    whole logs first, in the same places. Raises InputError for one that is there already.
    """
    for log in sorted(root.rglob("accuracy/mlperf_log_accuracy.json")):
        text = log.with_name("accuracy.txt")
        if not _is_ours(log, root):
            continue
        said = text.read_text(encoding="utf-8", errors="replace") if text.is_file() else ""
        if has_hash(said) and log.stat().st_size <= 2 * VIEWABLE + len(GAP):
            continue
        kept = backup / log.relative_to(root)
        if kept.exists():
            raise InputError(f"{kept} is there already: give an empty folder for the whole logs")
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, kept)
        text.write_text(accuracy_text(said, digest(log)), encoding="utf-8")  # before the whole is gone
        shorten(log, log)
        yield log


def _is_ours(log: Path, root: Path) -> bool:
    parts = log.relative_to(root).parts
    return "results" in parts or ("compliance" in parts and parts[-3] == "TEST01")
