"""Downloads one official file from its address or a mirror, and gives it its name only when it is right."""

from __future__ import annotations

from pathlib import Path

from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset, part_of, verify
from loadgen.harness.assets.http import AddressError
from loadgen.harness.assets.ranges import Parts
from loadgen.harness.assets.transfer import Progress, Transfer, Way
from loadgen.harness.files import sync


def download(asset: Asset, folder: Path, progress: Progress, way: Way | None = None) -> None:
    """Fetch the asset into `folder`, going on where an earlier call stopped.

    Raises InputError if no address has the right file, or none can be reached; what came by then is kept.
    """
    target = folder / asset.path
    target.parent.mkdir(parents=True, exist_ok=True)
    refusals = []
    for address in (asset.address, *asset.mirrors):
        try:
            _fetch(asset, address, target, progress, way or Way())
            return
        except AddressError as error:
            refusals.append(str(error))
    raise InputError("\n".join(refusals))


def _fetch(asset: Asset, address: str, target: Path, progress: Progress, way: Way) -> None:
    """Fetch from this address. What came from elsewhere, or earlier, may be why the whole is wrong: once without it."""
    parts = Parts(part_of(target))
    is_mixed = bool(parts.done)
    Transfer(asset, address, parts, progress, way).finish()
    try:
        verify(asset, parts.file, address)
    except InputError as error:
        parts.discard()
        if not is_mixed:
            raise AddressError(str(error)) from error
        _fetch(asset, address, target, progress, way)
        return
    sync(parts.file)
    parts.file.replace(target)
    parts.discard()
