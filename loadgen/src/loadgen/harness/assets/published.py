"""Files whose names, addresses and checksums a server publishes in a list, as MLCommons does for its large folders.

`NAME.uri` holds the address of a folder, `NAME.md5` a line `checksum  ./path` for each file below it. An asset with a
`listing` is one of them; it shows where in the list its folder is, and all files of that folder come with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import quote

from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset
from loadgen.harness.assets.download import download

_LINE = re.compile(r"([0-9a-f]{32}) [ *](?:\./)?(.+)")


class Listed(NamedTuple):
    """A list of checksums."""

    source: Path
    sums: Mapping[PurePosixPath, str]
    """Path below the published folder -> MD5."""


def expanded(assets: Sequence[Asset], folder: Path, may_ask: bool) -> list[Asset]:
    """The assets, those of a list with its address and checksum, and after them what else their lists name.

    may_ask: download lists that are not in `folder` yet, beside their files; else such an asset stays as it is.
    Raises InputError if a list cannot be got, or is none.
    """
    found = {asset.path: asset for asset in assets}
    for listing in dict.fromkeys(asset.listing for asset in assets if asset.listing):
        own = [asset for asset in assets if asset.listing == listing]
        name = (folder / own[0].path).with_name(listing.rpartition("/")[2])
        base, lines = (name.with_name(f"{name.name}{ending}") for ending in (".uri", ".md5"))
        if may_ask:
            _get(f"{listing}.uri", base)
            _get(f"{listing}.md5", lines)
        if base.is_file() and lines.is_file():
            found |= _joined(own, base.read_text(errors="replace"), _sums(lines))
    return list(found.values())


def _get(address: str, file: Path) -> None:
    if not file.is_file():
        download(Asset(file.name, address, ""), file.parent, lambda done, total: None)


def _joined(own: Sequence[Asset], base: str, listed: Listed) -> Mapping[str, Asset]:
    """Of one list, by path: those that are known, as far as we know them, and the others of their folder."""
    first = PurePosixPath(own[0].path)
    places = [path for path in listed.sums if path.name == first.name]
    if not places:
        raise InputError(f"{listed.source}: no {first.name} in it: remove it, and run fetch again")
    place = min(places, key=lambda path: len(path.parts))
    known = {asset.path: asset for asset in own}
    joined = {}
    for path, md5 in listed.sums.items():
        if path.is_relative_to(place.parent):
            name = str(first.parent / path.relative_to(place.parent))
            asset = known.get(name, replace(own[0], path=name, bytes=0, md5="", sha256=""))
            address = f"{base.strip().rstrip('/')}/{quote(str(path))}"
            joined[name] = replace(asset, address=address, md5=asset.md5 or md5)
    return joined


def _sums(source: Path) -> Listed:
    """Raises InputError for a line that is none, or leads out of the published folder."""
    sums = {}
    for number, line in enumerate(source.read_text(errors="replace").splitlines(), start=1):
        parsed = _LINE.fullmatch(line.strip())
        path = PurePosixPath(parsed[2]) if parsed else PurePosixPath("/")
        if parsed is None or path.is_absolute() or ".." in path.parts:
            raise InputError(f"{source}, line {number}: {line[:60]!r} is not `md5  ./path`: remove it, and fetch again")
        sums[path] = parsed[1]
    return Listed(source, sums)
