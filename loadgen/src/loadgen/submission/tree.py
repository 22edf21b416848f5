"""The folders of a submission, and which part of them is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from loadgen.errors import InputError
from loadgen.rules import Layout
from loadgen.submission.reading import folders
from loadgen.submission.requirements import LOWER

DIVISIONS = ("closed", "open", "network")
TOLERATED = (".git", ".github", "assets")
"""Folders beside the divisions that nobody minds."""


@dataclass(frozen=True, order=True)
class Place:
    """One result: a scenario's folder below results/. All paths are relative to the root."""

    division: str
    submitter: str
    system: str
    model: str
    folder: str
    """The scenario, as its folder spells it."""
    layout: Layout = field(compare=False, repr=False)
    """Of the round: where the rest of a result lies."""

    @property
    def scenario(self) -> str:
        return LOWER.get(self.folder, self.folder)

    @property
    def above(self) -> str:
        return f"{self.division}/{self.submitter}"

    @property
    def is_strict(self) -> bool:
        """Is it of a division whose results are compared?"""
        return self.division != "open"

    @property
    def system_path(self) -> str:
        return f"{self.above}/results/{self.system}"

    @property
    def model_path(self) -> str:
        return f"{self.system_path}/{self.model}"

    @property
    def path(self) -> str:
        return f"{self.model_path}/{self.folder}"

    @property
    def levels(self) -> tuple[str, ...]:
        """What may be refused and this result with it: from the root down to itself."""
        return ("root", self.division, self.above, self.system_path, self.model_path, self.path)

    @property
    def description(self) -> str:
        return f"{self.above}/systems/{self.system}.json"

    @property
    def code(self) -> str:
        """The folder of all models' code."""
        return f"{self.above}/{self.layout.code}"

    @property
    def measurements(self) -> str:
        """Its folder of settings, and of what was done to the weights."""
        return self._below(self.layout.measurements)

    @property
    def compliance(self) -> str:
        """The folder that holds a folder for each compliance test."""
        return self._below(self.layout.compliance)

    def _below(self, part: str) -> str:
        return f"{self.above}/{part}/{self.system}/{self.model}/{self.folder}"


@dataclass(frozen=True)
class Scope:
    """A tree, and the part of it that was given."""

    root: Path
    part: str = ""
    """Relative to the root, with slashes; empty: all of it."""

    def has(self, path: str) -> bool:
        """Does this path lie in the part, or above it?"""
        if not self.part:
            return True
        inside = path == self.part or path.startswith(f"{self.part}/")
        return inside or self.part.startswith(f"{path}/")

    def wants(self, place: Place) -> bool:
        """Is this result asked about: by its own folders, its system's, or one above them?"""
        owned = [place.path, place.measurements, place.compliance, place.description]
        if self.part.split("/")[2:3] == [place.layout.code]:
            owned.append(f"{place.code}/{place.model}")
        return any(map(self.has, owned))


def scope_of(given: Path) -> Scope:
    """The tree that a folder or file is, or lies in. Raises InputError if it is none."""
    place = given.absolute()
    if not place.exists():
        raise InputError(f"{given} is not there: give a submission's folder, or one inside it")
    if any((place / division).is_dir() for division in DIVISIONS):
        return Scope(place)
    for above in (place, *place.parents):
        if above.name in DIVISIONS:
            return Scope(above.parent, place.relative_to(above.parent).as_posix())
    raise InputError(
        f"{given} is no part of a submission: neither it nor a folder above it holds {', '.join(DIVISIONS)}; "
        "build one from a run's folder with `submission build`"
    )


def places(scope: Scope, layout: Layout) -> Iterator[Place]:
    """The results that are asked about, in the order of their paths."""
    for division in DIVISIONS:
        for submitter in folders(scope.root / division):
            above = scope.root / division / submitter / "results"
            for system in folders(above):
                for model in folders(above / system):
                    for folder in folders(above / system / model):
                        place = Place(division, submitter, system, model, folder, layout)
                        if scope.wants(place):
                            yield place
