"""The verdicts of the official v4.0 checker, its defects included, from what the strict checks found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loadgen.submission.catalogue import RULES, official_of
from loadgen.submission.check import Checked, Row
from loadgen.submission.findings import Finding, Official

_ZERO = ("result-zero", "inferred-no-estimate")


@dataclass
class Verdicts:
    """What the official checker would say."""

    results: dict[str, bool] = field(default_factory=dict)
    """Path of a result, or of what it refuses as a whole -> is it taken?"""
    unlisted: list[str] = field(default_factory=list)
    """Results of zero, which it neither takes nor refuses, and fails the submission for."""
    stops: list[Finding] = field(default_factory=list)
    """Where it would end with a traceback, and say nothing of the rest; empty: nowhere."""

    @property
    def passes(self) -> bool:
        return not self.stops and not self.unlisted and all(self.results.values())


def verdicts(checked: Checked) -> Verdicts:
    """In the order of its own walk: what is refused as a whole is not looked into."""
    said, by_result = Verdicts(), _by_result(checked.findings)
    if _fails(by_result["root"]):
        said.results["root"] = False
        return said
    for result, findings in by_result.items():
        if result.count("/") <= 1 and result and _fails(findings):  # a division, or a submitter
            said.results[result] = False
    models: dict[str, list[Row]] = defaultdict(list)
    for row in checked.rows:
        models[row.place.model_path].append(row)
    for rows in models.values():
        _model(said, by_result, rows)
    return said


def _by_result(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        found[finding.result].append(finding)
    return found


def _fails(findings: Sequence[Finding]) -> bool:
    return any(official_of(finding) is Official.FAILS for finding in findings)


def _stops(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if official_of(finding) is Official.STOPS]


def _model(said: Verdicts, by_result: Mapping[str, list[Finding]], rows: Sequence[Row]) -> None:
    place = rows[0].place
    if any(said.results.get(level) is False for level in (place.division, place.above)):
        return
    about_system = [one for one in by_result[place.system_path] if one.rule != "system-field-text"]
    said.stops += _stops(by_result[place.above]) + _stops(about_system)
    if _fails(by_result[place.system_path]):
        said.results[place.system_path] = False
        return
    about_model = [one for one in by_result[place.model_path] if one.rule != "scenario-missing"]
    if _fails(about_model):
        said.results[place.model_path] = False
        return
    measured = {row.place.scenario for row in rows if _result(said, by_result, row)}
    if place.is_strict and (rows[0].required or frozenset()) - measured:
        said.results[place.model_path] = False


def _result(said: Verdicts, by_result: Mapping[str, list[Finding]], row: Row) -> bool:
    """Note the verdict on a result; returns whether its performance was taken, which decides on missing scenarios."""
    place, findings = row.place, by_result[row.place.path]
    measurements = [one for one in findings if one.rule.startswith(("measurements-", "code-", "power-settings"))]
    if any(one.rule == "scenario-unknown" for one in findings):
        said.results[place.path] = False
        return False
    said.stops += _stops(measurements)
    if _fails(measurements):
        said.results[place.path] = said.results[place.measurements] = False
        return False
    said.stops += _stops([one for one in findings if one not in measurements])
    if _fails(findings) and not _fails([one for one in findings if one.rule not in _ZERO]):
        said.unlisted.append(place.path)
        return True
    is_taken = not _fails(findings)
    if is_taken:  # only then are the system's texts put into the table
        said.stops += [one for one in by_result[place.system_path] if official_of(one) is Official.STOPS]
    said.results[place.path] = is_taken
    inside = f"{place.path}/performance"
    return not _fails([one for one in findings if one.path.startswith(inside)])


def differences(checked: Checked) -> list[Finding]:
    """What fails here and passes there, each in its place."""
    errors = [finding for finding in checked.findings if not RULES[finding.rule].is_warning]
    return [one for one in errors if official_of(one) in (Official.LOGS, Official.SILENT)]
