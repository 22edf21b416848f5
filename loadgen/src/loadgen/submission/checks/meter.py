"""A power meter's samples, and the window of the load that they are counted in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from loadgen.submission.reading import Log

POWER = "spl.txt"
TIME_FORMAT = "%m-%d-%Y %H:%M:%S.%f"


@dataclass(frozen=True)
class Sample:
    """A line of spl.txt."""

    watts: float
    power_factor: float | None


def load_span(log: Log) -> tuple[datetime, datetime] | None:
    """When the load began and ended, in UTC."""
    try:
        begin, end = (moment_of(log.text(key) or "") for key in ("power_begin", "power_end"))
    except ValueError:
        return None
    return begin, end


def moment_of(text: str) -> datetime:
    """Raises ValueError."""
    return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=timezone.utc)


def samples(file: Path, span: tuple[datetime, datetime]) -> Iterator[Sample]:
    """The meter's samples while the load ran. Raises OSError, ValueError or IndexError for a damaged file."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("Time"):
                cells = line.split(",")
                if span[0] < moment_of(cells[1]) < span[1]:
                    yield Sample(float(cells[3]), float(cells[9]) if len(cells) > 9 else None)
