"""What every check is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadgen.submission.findings import Finding, Official, shown
from loadgen.submission.reading import Log, files, read_log
from loadgen.submission.requirements import Needs, Requirements
from loadgen.submission.tree import Place


@dataclass(frozen=True)
class Context:
    """The tree and the round that it is checked by."""

    root: Path
    requirements: Requirements

    def at(self, path: str) -> Path:
        return self.root / path


@dataclass(frozen=True)
class Subject:
    """One result, with what is known of it before its logs are read."""

    context: Context
    place: Place
    needs: Needs
    system: Mapping[str, Any] = field(default_factory=dict)
    """Its description; empty if that cannot be read."""
    logs: dict[str, Log] = field(default_factory=dict, compare=False)
    """Detail logs that were read already."""

    def at(self, path: str) -> Path:
        return self.context.root / path

    def log(self, path: str) -> Log:
        """A detail log of this result, read once."""
        if path not in self.logs:
            self.logs[path] = read_log(self.at(path))
        return self.logs[path]

    @property
    def requirements(self) -> Requirements:
        return self.context.requirements

    def odd_files(self, path: str, wanted: Iterable[str], optional: Iterable[str] = ()) -> list[str]:
        """Files that a folder lacks, or has too many."""
        odd = set(files(self.at(path))) ^ set(wanted)
        return sorted(odd - set(optional) - set(self.requirements.tree.ignored_files))

    def finding(
        self,
        rule: str,
        path: str,
        key: str = "",
        observed: Any = "",
        required: Any = "",
        official: Official | None = None,
    ) -> Finding:
        """One that refuses this result."""
        return Finding(path, rule, key, shown(observed), shown(required), self.place.path, official)
