"""Where the log files of a run lie, and what is wrong with one that cannot be read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from loadgen.contracts import InputError


class LogError(InputError):
    """A log that cannot be read: not there, cut off, or something else. Says file and line."""


def opened(path: Path) -> TextIO:
    """A log to read. Raises LogError if it cannot be opened."""
    try:
        return path.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror or error}") from error


def in_folder(folder: Path, name: str) -> Path:
    """A log that a test's folder holds. Raises LogError that names a folder of the right level, where one is below."""
    file = folder / name
    if file.is_file():
        return file
    below = (path for pattern in ("*", "*/*") for path in sorted(folder.glob(f"{pattern}/{name}")))
    nearest = next(below, None) if folder.is_dir() else None
    such = f", such as {nearest.parent}" if nearest else ""
    raise LogError(f"{file} is not there: give the folder of one test's logs{such}")


@dataclass(frozen=True)
class LogSettings:
    """Where the logs of a run go. Existing files of the same name are replaced."""

    outdir: Path
    prefix: str = "mlperf_log_"
    suffix: str = ""
    prefix_with_datetime: bool = False
    """Put the local time before each name, as the official LoadGen does."""
    enable_trace: bool = False
    copy_summary_to_stdout: bool = False
    copy_detail_to_stdout: bool = False
    started: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ"))

    def path(self, name: str) -> Path:
        """`name` with its ending, such as `summary.txt`, to its path."""
        stem, ending = name.rsplit(".", 1)
        stamp = f"{self.started}_" if self.prefix_with_datetime else ""
        return self.outdir / f"{self.prefix}{stamp}{stem}{self.suffix}.{ending}"
