"""A result's folder below measurements/, and its code."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path

from loadgen.submission.checks.context import Subject
from loadgen.submission.findings import Finding
from loadgen.submission.reading import files, read_object, read_text


def check_measurements(subject: Subject, has_power: bool) -> Iterator[Finding]:
    """Files, the five fields, and the code that they belong to."""
    place = subject.place.measurements
    if not subject.at(place).is_dir():
        yield subject.finding("measurements-missing", place)
        return
    for name in subject.requirements.tree.measurement_files:
        file = subject.at(f"{place}/{name}")
        if not file.is_file():
            yield subject.finding("measurements-file-missing", f"{place}/{name}")
        elif file.stat().st_size == 0 and subject.requirements.asks_for_content:
            yield subject.finding("measurements-file-empty", f"{place}/{name}")
    if has_power and subject.requirements.asks_for_content:
        yield from _power(subject, place)
    yield from _described(subject, place)


def _power(subject: Subject, place: str) -> Iterator[Finding]:
    """Beside the measurements, or up to three folders above."""
    near = [subject.at(place), *subject.at(place).parents[:3]]
    found = {name: folder / name for folder in reversed(near) for name in files(folder)}
    for pattern in subject.requirements.tree.power_measurement_files:
        names = [name for name in found if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            yield subject.finding("power-settings", place, pattern, "not there")
        elif all(found[name].stat().st_size == 0 for name in names):
            yield subject.finding("power-settings", place, pattern, "empty")


def measurements_file(subject: Subject) -> tuple[str, str]:
    """(name, implementation) of the result's measurements; empty without one.

    Named `<system>_<implementation>_<scenario>.json`, or without the scenario, in the rounds that name it so.
    """
    name = subject.requirements.tree.layout.measurements_file
    if "{" not in name:
        return (name if subject.at(f"{subject.place.measurements}/{name}").is_file() else ""), ""
    system, ending = subject.place.system, f"_{subject.place.folder}.json"
    names = [name for name in files(subject.at(subject.place.measurements)) if name.endswith(".json")]
    own = [name for name in names if name.startswith(system)]
    for name in sorted(own, key=lambda name: not name.endswith(ending)):
        end = len(ending) if name.endswith(ending) else len(".json")
        return name, name[len(system) + 1 : -end]
    return "", ""


def _described(subject: Subject, place: str) -> Iterator[Finding]:
    name, implementation = measurements_file(subject)
    if not name:
        wanted = subject.requirements.tree.layout.measurements_file
        required = f"{subject.place.system}_*.json" if "{" in wanted else wanted
        yield subject.finding("measurements-json-missing", place, required=required)
        return
    path = f"{place}/{name}"
    said, fault = read_object(subject.at(path))
    if said is None:
        yield subject.finding("measurements-unreadable", path, observed=fault)
        return
    for key in subject.requirements.tree.implementation_fields:
        if key not in said:
            yield subject.finding("measurements-field-missing", path, key, "not there")
        elif not said[key] and subject.requirements.asks_for_content:
            yield subject.finding("measurements-field-empty", path, key, said[key])
    if not _has_code(subject.at(subject.place.code), subject.place.model, implementation):
        yield subject.finding("code-missing", f"{subject.place.code}/{subject.place.model}", "", "not there")


def _has_code(folder: Path, model: str, implementation: str) -> bool:
    """Of the implementation, or of the model; a file in its place names another model's folder."""
    place = folder / model
    if place.is_file():
        place = folder / (read_text(place)[0] or "").strip()
    return os.path.exists(place / implementation) or os.path.exists(place)  # False for a name that cannot be
