"""Check a submission, or a part of one: every finding, and every result with its figure and verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from loadgen.submission.catalogue import RULES
from loadgen.submission.checks.accuracy import check_accuracy, first_score
from loadgen.submission.checks.audits import check_audits
from loadgen.submission.checks.context import Context, Subject
from loadgen.submission.checks.layout import check_root, check_submitter, own_names
from loadgen.submission.checks.measurements import check_measurements
from loadgen.submission.checks.performance import Measured, check_performance, measure, run_of
from loadgen.submission.checks.power import Power, check_power, has_power, power_of
from loadgen.submission.checks.systems import check_system, unused
from loadgen.submission.findings import Finding
from loadgen.submission.reading import folders, read_object
from loadgen.submission.requirements import LOWER, ROUND, Needs, Requirements
from loadgen.submission.tree import DIVISIONS, Place, Scope, places, scope_of


@dataclass(frozen=True)
class Row:
    """One result of the tree."""

    place: Place
    benchmark: str
    """The round's name of its model; empty: the round has no such model."""
    system: Mapping[str, Any]
    measured: Measured
    accuracy: str
    """The first judged score, as accuracy.txt has it; empty: not there."""
    power: Power | None
    required: frozenset[str] | None
    """Scenarios that its model needs in this category."""


@dataclass(frozen=True)
class Checked:
    """What a check came to."""

    scope: Scope
    requirements: Requirements
    rows: Sequence[Row]
    findings: Sequence[Finding]

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if not RULES[finding.rule].is_warning]

    @property
    def passes(self) -> bool:
        return not self.errors

    @cached_property
    def _refused(self) -> frozenset[str]:
        return frozenset(finding.result for finding in self.errors)

    def refuses(self, place: Place) -> bool:
        """Does any finding refuse this result, or something above it?"""
        return bool(self._refused.intersection(place.levels))


def check(given: Path, round_name: str = ROUND) -> Checked:
    """Check what lies in a folder: a whole submission, a division, a submitter, a system, a model or a result.

    Raises InputError if it is no part of a submission, or for an unknown round. A bad file raises nothing: it is a
    finding.
    """
    scope, requirements = scope_of(given), Requirements(round_name)
    context = Context(scope.root, requirements)
    found: list[Finding] = [] if scope.part else list(check_root(context))
    rows: list[Row] = []
    for division in DIVISIONS:
        for submitter in folders(scope.root / division):
            if scope.has(f"{division}/{submitter}"):
                found += _around(context, scope, division, submitter)
    wanted = list(places(scope, requirements.tree.layout))
    for place in wanted:
        row, findings = _result(context, place)
        rows.append(row)
        found += findings
    found += _models(context, wanted, rows)
    if not rows:
        found.append(Finding(scope.part or ".", "nothing-here"))
    return Checked(scope, requirements, rows, sorted(set(found)))


def _around(context: Context, scope: Scope, division: str, submitter: str) -> Iterator[Finding]:
    """Names and sizes of the part, and the descriptions of its systems."""
    for finding in check_submitter(context, division, submitter):
        if scope.has(finding.path):
            yield finding
    above = f"{division}/{submitter}"
    for system in folders(context.at(f"{above}/results")):
        if any(map(scope.has, (f"{above}/results/{system}", f"{above}/systems/{system}.json"))):
            yield from check_system(context, division, submitter, system)
    yield from (finding for finding in unused(context, division, submitter) if scope.has(finding.path))


def _result(context: Context, place: Place) -> tuple[Row, list[Finding]]:
    described, _ = read_object(context.at(place.description))
    own = own_names(context, place.division, place.submitter)
    needs = context.requirements.named(place.model, own)
    if needs is None:
        row = Row(place, "", described or {}, Measured(None), "", None, None)
        return row, []
    subject = Subject(context, place, needs, described or {})
    kind = str(subject.system.get("system_type"))
    required = needs.required(kind)
    known = (required or frozenset()) | needs.optional(kind)
    if required is not None and place.is_strict and place.scenario not in known:
        unknown = subject.finding("scenario-unknown", place.path, "", place.folder, ", ".join(sorted(known)))
        return _row(subject, required, powered=False), [unknown]
    powered = has_power(subject)
    found = [*check_measurements(subject, powered), *check_accuracy(subject), *check_performance(subject, powered)]
    found += check_audits(subject)
    found += check_power(subject) if powered else []
    return _row(subject, required, powered), found


def _row(subject: Subject, required: frozenset[str] | None, powered: bool) -> Row:
    run = run_of(subject, f"{subject.place.path}/performance/run_1")
    measured = measure(run)
    return Row(
        subject.place,
        subject.needs.name,
        subject.system,
        measured,
        first_score(subject),
        power_of(subject, measured) if powered else None,
        required,
    )


def _models(context: Context, wanted: Sequence[Place], rows: Sequence[Row]) -> Iterator[Finding]:
    """What is asked of all scenarios of a model together."""
    by_model: dict[str, list[tuple[Place, Row]]] = {}
    for place, row in zip(wanted, rows, strict=True):
        by_model.setdefault(place.model_path, []).append((place, row))
    for path, pairs in by_model.items():
        place, row = pairs[0]
        own = own_names(context, place.division, place.submitter)
        needs = context.requirements.named(place.model, own)
        yield from _model(context, path, place, row, needs)


def _model(context: Context, path: str, place: Place, row: Row, needs: Needs | None) -> Iterator[Finding]:
    if needs is None:
        known = ", ".join(context.requirements.benchmarks)
        yield Finding(path, "model-unknown", "", place.model, known, path)
        return
    kind = str(row.system.get("system_type"))
    if row.required is None:
        if kind in context.requirements.tree.system_types:
            yield Finding(path, "model-category", "", kind, f"a category that has {needs.name}", path)
        return
    there = {LOWER.get(one, one) for one in folders(context.at(path))}
    wanted, some = ", ".join(sorted(row.required)), needs.one_of(kind)
    if some and not some & there and place.is_strict:
        either = " or ".join(sorted(some))
        yield Finding(path, "scenario-missing", "", f"without {either}", f"{wanted}, and {either}", path)
    for scenario in sorted(row.required - there):
        if place.is_strict:
            yield Finding(path, "scenario-missing", "", f"without {scenario}", wanted, path)
