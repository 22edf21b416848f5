"""A system's description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loadgen.submission.checks.context import Context
from loadgen.submission.findings import Finding, Official, shown
from loadgen.submission.reading import files, folders, read_object
from loadgen.submission.requirements import Requirements

_SHOWN = (
    "system_name",
    "host_processor_model_name",
    "accelerator_model_name",
    "framework",
    "operating_system",
    "hw_notes",
    "sw_notes",
)
"""Texts of the tables."""


def check_system(context: Context, division: str, submitter: str, system: str) -> Iterator[Finding]:
    """The description of one system that has results."""
    above = f"{division}/{submitter}"
    path, result = f"{above}/systems/{system}.json", f"{above}/results/{system}"
    described, fault = read_object(context.at(path))
    if described is None:
        rule = "system-unreadable" if context.at(path).exists() else "system-missing"
        yield Finding(path, rule, observed=fault, result=result)
        return
    for rule, key, observed, required, official in _faults(context, described, division, submitter):
        yield Finding(path, rule, key, shown(observed), shown(required), result, official)


_Fault = tuple[str, str, Any, str, "Official | None"]


def _faults(context: Context, described: Mapping[str, Any], division: str, submitter: str) -> Iterator[_Fault]:
    """(rule, key, observed, required, what the official checker does)."""
    status, kind, tree = described.get("status"), described.get("system_type"), context.requirements.tree
    if not isinstance(status, str):
        yield "system-status", "status", status, ", ".join(tree.statuses), Official.STOPS
    elif status.lower() not in tree.statuses:
        yield "system-status", "status", status, ", ".join(tree.statuses), None
    if not isinstance(kind, str) or kind not in tree.system_types:
        yield "system-type", "system_type", kind, " | ".join(tree.system_types), None
    yield from _fields(context.requirements, described)
    yield from _names(described, division, submitter)


def _fields(requirements: Requirements, described: Mapping[str, Any]) -> Iterator[_Fault]:
    tree = requirements.tree
    wanted = [*tree.system_fields, *(tree.network_fields if is_network(described) else [])]
    known = {*wanted, *tree.power_fields, *tree.network_fields}
    for key in wanted:
        if key in ("status", "system_type", "submitter", "division"):
            continue  # judged by their own rules
        if key not in described:
            yield "system-field-missing", key, "not there", "", None
        elif not described[key] and key in filled(requirements):
            yield "system-field-empty", key, described[key], "a text that says what it is", None
    for key in _SHOWN:
        if key in described and not isinstance(described[key], str):
            yield "system-field-text", key, described[key], "a text", _stops_at(key, described)
    for key in described:
        if key not in known:
            yield "system-field-unknown", key, "", "", None


def filled(requirements: Requirements) -> set[str]:
    """Fields that say what a system is, and may not be empty."""
    tree = requirements.tree
    return set(tree.system_fields) - set(tree.may_be_empty) if requirements.asks_for_content else set()


def _stops_at(key: str, described: Mapping[str, Any]) -> Official | None:
    """An empty one is joined to nothing, so that the official checker does not stumble."""
    return Official.LOGS if not described[key] and key == "sw_notes" else None


def _names(described: Mapping[str, Any], division: str, submitter: str) -> Iterator[_Fault]:
    own = described.get("submitter")
    if not isinstance(own, str):
        yield "system-submitter", "submitter", own, submitter, Official.STOPS
    elif own.lower() != submitter.lower():
        yield "system-submitter", "submitter", own, submitter, None
    if described.get("division") != division:
        yield "system-division", "division", described.get("division"), division, None
    expected = {"network": True, "closed": False}.get(division)
    if expected is not None and expected is not is_network(described):
        wanted = "true" if expected else "false, or not there"
        yield "system-network", "is_network", described.get("is_network"), wanted, None


def is_network(described: Mapping[str, Any]) -> bool:
    """Is the system reached over a network?"""
    return str(described.get("is_network")).lower() == "true"


def unused(context: Context, division: str, submitter: str) -> Iterator[Finding]:
    """Descriptions without results."""
    above = f"{division}/{submitter}"
    there = set(folders(context.at(f"{above}/results")))
    for name in files(context.at(f"{above}/systems")):
        if there and name.endswith(".json") and name.removesuffix(".json") not in there:
            yield Finding(f"{above}/systems/{name}", "system-unused")
