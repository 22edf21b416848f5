"""Where files stay between runs, and the official ones that benchmarks share: each under its checksum."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset, check_space, fault
from loadgen.harness.files import sync, whole_file


def root() -> Path:
    """`inference-bench` in `$XDG_CACHE_HOME` or `~/.cache`; if it is read-only, in the folder for temporary files."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inference-bench"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # a user without a home
        pass
    folder = Path(tempfile.gettempdir()) / f"inference-bench-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def blob(asset: Asset) -> Path | None:
    """Where the asset is kept for all benchmarks, in a folder that is there. None: it has no checksum to be told by."""
    key = asset.sha256 or asset.md5
    if not key:
        return None
    folder = root() / "blobs"
    folder.mkdir(exist_ok=True)
    return folder / key


def take(asset: Asset, target: Path) -> bool:
    """Put the kept file at `target` too. False if there is none, or somebody changed it: it is removed then."""
    kept = blob(asset)
    if kept is None or not kept.is_file():
        return False
    if fault(asset, kept):
        kept.unlink()
        return False
    with whole_file(target) as part:
        _link(kept, part)
    return True


def keep(asset: Asset, target: Path) -> str:
    """Keep a file that is known to be right. Returns why that failed; empty: it is kept, or has no checksum.

    To be called by one process at a time for an asset.
    """
    kept = blob(asset)
    if kept is None or kept.is_file():
        return ""
    for left in kept.parent.glob(f"{kept.name}.*.part"):  # by a process that was killed while it copied
        left.unlink()
    try:
        with whole_file(kept) as part:
            _link(target, part)
    except (OSError, InputError) as error:
        return str(error)
    return ""


def _link(source: Path, target: Path) -> None:
    """A second name of the same file, which takes no room; between two file systems a copy."""
    try:
        os.link(source, target)
    except OSError:
        check_space(target.parent, source.stat().st_size)
        shutil.copyfile(source, target)
        sync(target)


def checked(asset: Asset, file: Path) -> str:
    """As `fault`, but a file that has not changed since it was last read whole is not read again.

    What was found is kept in `checked.json` beside the blobs, by path, size and time of change.
    """
    if not file.is_file() or not asset.has_checksum:
        return fault(asset, file)
    memory, stat = root() / "checked.json", file.stat()
    try:
        known = dict(json.loads(memory.read_text()))
    except (OSError, ValueError):
        known = {}
    key = f"{file.resolve()} {asset.sha256 or asset.md5} {stat.st_size} {stat.st_mtime_ns}"
    if key not in known:
        known[key] = fault(asset, file)
        with contextlib.suppress(OSError), whole_file(memory) as part:  # then the next run reads it again
            part.write_text(json.dumps(known, indent=0))
    return str(known[key])
