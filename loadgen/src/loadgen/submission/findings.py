"""What a check finds: a rule that is broken, where, what was seen, what is asked for."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class Official(enum.Enum):
    """What the official checker of round v4.0 does about it."""

    FAILS = "fails it"
    LOGS = "writes a line and lets it pass"
    SILENT = "does not look at it"
    STOPS = "ends with a traceback"


@dataclass(frozen=True)
class Rule:
    """One rule that a submission keeps."""

    id: str
    what: str
    """What is asked for, as a sentence."""
    fix: str
    """What to do where it is not so."""
    official: Official
    """Where the official checker knows it; a finding may know better."""
    is_warning: bool = False
    """A warning does not fail a submission."""


@dataclass(frozen=True, order=True)
class Finding:
    """A place that breaks a rule. Sorted by place, then rule."""

    path: str
    """Of the file or folder, relative to the root of the tree, with slashes."""
    rule: str
    """Its id."""
    key: str = ""
    """Which key of the file."""
    observed: str = ""
    required: str = ""
    result: str = ""
    """The result, or what stands above results, that is refused for it: its path as the official checker lists it."""
    official: Official | None = None
    """None: as the rule says."""

    @property
    def place(self) -> str:
        return printable(f"{self.path}: {self.key}" if self.key else self.path)


def printable(text: str) -> str:
    """Characters that a terminal would obey, or no encoding has, as escapes."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in text)


def shown(value: Any) -> str:
    """A value in a message: short, on one line."""
    text = value if isinstance(value, str) else repr(value)
    text = printable(" ".join(text[:1000].split()))
    return text if len(text) <= 120 else f"{text[:117]}..."
