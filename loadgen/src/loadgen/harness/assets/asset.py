"""Official files: what they are, whether a folder has them, and how one joins it, whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from loadgen.contracts import InputError
from loadgen.harness.files import sync, whole_file
from loadgen.harness.standins.making import tell

_BLOCK = 1 << 20  # bytes read at a time
_SAID_EACH_S = 5.0  # how far a checksum is: of the largest file, 152 GB, it takes minutes


@dataclass(frozen=True)
class Asset:
    """One official file. What is not known about it stays empty, and cannot be checked."""

    path: str
    """Where it goes, below the profile's folder."""
    address: str
    """Where it is downloaded from; empty: only a person can get it, as `gate` says."""
    licence: str
    bytes: int = 0
    md5: str = ""
    sha256: str = ""
    mirrors: tuple[str, ...] = ()
    """Other addresses of the same file, tried in this order when one fails."""
    gate: str = ""
    """What a person has to do first (sign, register), and where; empty: nothing."""
    listing: str = ""
    """The address, without its endings, of a published list that names this file and others beside it, which `fetch`
    gets too (see `published`); empty: there is none."""
    token: str = ""
    """The environment variable that holds the access token which the server wants; empty: it wants none."""
    backends: tuple[str, ...] = ()
    """The backends that need it; empty: all."""
    dtypes: tuple[str, ...] = ()
    """The number formats (`--dtype`) that need it; empty: all."""
    instead: tuple[str, ...] = ()
    """Files below the profile's folder, one of which serves as well: what it is unpacked to, or another form of it."""

    @property
    def has_checksum(self) -> bool:
        return bool(self.md5 or self.sha256)

    def is_needed(self, backend: str, dtype: str) -> bool:
        """By a run with this backend and number format."""
        return backend in (self.backends or (backend,)) and dtype in (self.dtypes or (dtype,))


def fault(asset: Asset, file: Path, *, deep: bool = True) -> str:
    """What is wrong with this file as the asset, in a few words; empty: nothing that can be known.

    deep: read it all and compare checksums, which takes seconds a gigabyte.
    """
    if not file.is_file():
        return "missing"
    size = file.stat().st_size
    if size == 0 or (asset.bytes and size != asset.bytes):
        return f"wrong: {size:,} bytes{f', not {asset.bytes:,}' if asset.bytes else ''}"
    for kind, wanted in (("sha256", asset.sha256), ("md5", asset.md5)) if deep else ():
        if wanted and (found := digest(file, kind)) != wanted:
            return f"wrong: its {kind} is {found}, not {wanted}"
    return ""


def substitute(asset: Asset, folder: Path) -> str:
    """What the profile's folder holds in the place of an asset that it has not (`Asset.instead`); empty: nothing."""
    if (folder / asset.path).is_file():
        return ""
    return next((path for path in asset.instead if (folder / path).is_file()), "")


def digest(file: Path, kind: str = "sha256") -> str:
    """Of the whole file, in hexadecimal digits. Says on stderr how far it is where that takes long."""
    found, size, done = hashlib.new(kind, usedforsecurity=False), file.stat().st_size, 0
    began = last = time.monotonic()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            found.update(block)
            done += len(block)
            if (now := time.monotonic()) - last >= _SAID_EACH_S:
                last, left = now, (size - done) * (now - began) / done
                tell(f"checksum of {file.name}: {done / 1e9:,.1f} of {size / 1e9:,.1f} GB  ETA {left:.0f} s")
    return found.hexdigest()


def part_of(target: Path) -> Path:
    """Where a file is downloaded to until it is known to be whole and right."""
    return target.with_name(f"{target.name}.part")


def verify(asset: Asset, part: Path, source: object) -> None:
    """Raise InputError if what came from `source` is not the asset."""
    if wrong := fault(asset, part):
        raise InputError(f"what came from {source} is not {asset.path} ({wrong}); it is removed: {_advice(asset)}")


def _advice(asset: Asset) -> str:
    return f"try again, or get it by hand and give its folder by --from{f' ({asset.gate})' if asset.gate else ''}"


def copy(asset: Asset, source: Path, folder: Path) -> None:
    """Copy the asset from a folder of the same layout, or one that has it under its bare name.

    Raises InputError if it is not there, or is not right; a file that was there before stays then.
    """
    names = (asset.path, Path(asset.path).name)
    found = next((source / name for name in names if (source / name).is_file()), None)
    if found is None:
        raise InputError(f"{source} has no {' or '.join(dict.fromkeys(names))}: {_advice(asset)}")
    target = folder / asset.path
    target.parent.mkdir(parents=True, exist_ok=True)
    check_space(folder, found.stat().st_size)
    with whole_file(target) as part:
        shutil.copyfile(found, part)
        verify(asset, part, found)
        sync(part)


def check_space(folder: Path, needed: int) -> None:
    """Raise InputError if the file system of `folder` has not that many bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder} needs {needed / 1e9:,.1f} GB more and has {free / 1e9:,.1f} GB free: "
            "make room, or name another folder by --data"
        )
