"""What a check found, as text, JSON or SARIF. The same tree gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from loadgen.logs import own_version
from loadgen.submission.catalogue import RULES, official_of
from loadgen.submission.check import Checked
from loadgen.submission.checks.power import Power
from loadgen.submission.findings import Finding
from loadgen.submission.official import Verdicts, differences, verdicts


def text(checked: Checked, as_official: bool = False) -> str:
    """Each finding with its place, what was seen, what is asked for and how to mend it; then a line a result."""
    if as_official:
        return "\n".join([*_official(checked), ""])
    lines = [line for finding in checked.findings for line in _finding(finding)]
    for row in checked.rows:
        verdict = "refused" if checked.refuses(row.place) else "ok"
        lines.append(f"{verdict:<8} {row.place.path}{_figure(row.measured.value)}{_power(row.power)}")
    errors, warnings = len(checked.errors), len(checked.findings) - len(checked.errors)
    verdict = "passes" if checked.passes else "does not pass"
    round_name = checked.requirements.round.name
    lines.append(
        f"{_count(len(checked.rows), 'result')}, {_count(errors, 'error')}, {_count(warnings, 'warning')}: "
        f"the submission {verdict} by the rules of {round_name}"
    )
    return "\n".join([*lines, ""])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"  {value:.6g}"


def _power(power: Power | None) -> str:
    return "" if power is None else f"  {power.watts:.6g} W, {power.efficiency:.6g} a joule"


def _finding(finding: Finding) -> Iterator[str]:
    rule = RULES[finding.rule]
    yield f"{'warning' if rule.is_warning else 'error'} {rule.id}: {finding.place}"
    yield f"  {rule.what}"
    if finding.observed:
        yield f"  observed: {finding.observed}"
    if finding.required:
        yield f"  required: {finding.required}"
    yield f"  to fix: {rule.fix}"


def _official(checked: Checked) -> Iterator[str]:
    """The official checker's verdicts, and where this one judges otherwise."""
    said = verdicts(checked)
    for finding in said.stops:
        yield f"stops with a traceback at {finding.place} ({finding.rule}: {finding.observed})"
    if not said.stops:
        yield from (f"neither   {path}" for path in said.unlisted)
        yield from (f"{'Results  ' if taken else 'NoResults'} {path}" for path, taken in sorted(said.results.items()))
    yield f"the official v4.0 checker {'passes' if said.passes else 'does not pass'} this submission"
    for finding in differences(checked):
        observed = f", observed {finding.observed}" if finding.observed else ""
        required = f", required {finding.required}" if finding.required else ""
        yield f"differs: {finding.place}: {finding.rule}{observed}{required}; it {official_of(finding).value}"
    yield f"the strict check {'passes' if checked.passes else 'does not pass'} it"


def as_json(checked: Checked, as_official: bool = False) -> str:
    """One object: verdicts, results, findings with their rules."""
    said = verdicts(checked)
    data = {
        "schema": 1,
        "round": checked.requirements.round.name,
        "part": checked.scope.part,
        "passes": said.passes if as_official else checked.passes,
        "strict": {"passes": checked.passes},
        "official": official_record(said),
        "results": [
            {
                "path": row.place.path,
                "benchmark": row.benchmark,
                "scenario": row.place.scenario,
                "result": row.measured.value,
                "inferred": row.measured.inferred,
                "accuracy": row.accuracy,
                "power": None if row.power is None else vars(row.power),
                "passes": not checked.refuses(row.place),
            }
            for row in checked.rows
        ],
        "findings": [_record(finding) for finding in checked.findings],
    }
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def official_record(said: Verdicts) -> dict[str, Any]:
    stops = [f"{finding.place}: {finding.rule}" for finding in said.stops]
    return {
        "passes": said.passes,
        "stops": stops,
        "unlisted": sorted(said.unlisted),
        "results": dict(sorted(said.results.items())),
    }


def _record(finding: Finding) -> dict[str, Any]:
    rule = RULES[finding.rule]
    return {
        "rule": rule.id,
        "level": "warning" if rule.is_warning else "error",
        "path": finding.path,
        "key": finding.key,
        "observed": finding.observed,
        "required": finding.required,
        "what": rule.what,
        "fix": rule.fix,
        "official": official_of(finding).name.lower(),
    }


def sarif(checked: Checked) -> str:
    """Static Analysis Results Interchange Format 2.1.0, which code hosts and editors show beside the files."""
    used = sorted({finding.rule for finding in checked.findings})
    driver = {
        "name": "loadgen submission check",
        "version": own_version(),
        "rules": [
            {
                "id": rule,
                "shortDescription": {"text": RULES[rule].what},
                "help": {"text": RULES[rule].fix},
                "defaultConfiguration": {"level": "warning" if RULES[rule].is_warning else "error"},
            }
            for rule in used
        ],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "utf16CodeUnits",
        "results": _sarif_results(checked.findings, used),
    }
    data = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    }
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def _sarif_results(findings: Sequence[Finding], used: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "ruleId": finding.rule,
            "ruleIndex": used.index(finding.rule),
            "level": "warning" if RULES[finding.rule].is_warning else "error",
            "message": {"text": _message(finding)},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(finding.path)}}}],
        }
        for finding in findings
    ]


def _message(finding: Finding) -> str:
    parts = [
        RULES[finding.rule].what,
        f"Key: {finding.key}." if finding.key else "",
        f"Observed: {finding.observed}." if finding.observed else "",
        f"Required: {finding.required}." if finding.required else "",
        RULES[finding.rule].fix,
    ]
    return " ".join(part for part in parts if part)


def _uri(path: str) -> str:
    return quote(path, safe="/")
