"""Names, sizes and links: what must be so before anything is read."""

from __future__ import annotations

import os
from collections.abc import Iterator

from loadgen.submission.checks.context import Context
from loadgen.submission.findings import Finding, Official
from loadgen.submission.reading import files, folders, read_object
from loadgen.submission.tree import DIVISIONS, TOLERATED

_SHOWN = 10  # of one kind: a garbled archive may have thousands


def check_root(context: Context) -> Iterator[Finding]:
    """What lies beside the divisions, and beside the submitters."""
    root = context.root
    for name in folders(root):
        if name not in DIVISIONS and name not in TOLERATED:
            yield Finding(name, "unknown-division", required=", ".join(DIVISIONS))
    for name in files(root):
        if not name.endswith((".md", ".pdf")):
            yield Finding(name, "root-file", result="root")
    for division in DIVISIONS:
        for name in files(root / division):
            yield Finding(f"{division}/{name}", "division-file", result=division)


def check_submitter(context: Context, division: str, submitter: str) -> Iterator[Finding]:
    """Everything below a submitter's folder, whichever part was asked about."""
    above = f"{division}/{submitter}"
    place, parts = context.at(above), context.requirements.tree.layout.folders
    for name in folders(place):
        if name not in parts and not name.startswith((".", "__pycache__")) and " " not in name:
            yield Finding(f"{above}/{name}", "unknown-folder", required=", ".join(parts))
    if "results" not in folders(place):
        yield Finding(above, "no-results-folder")
    found: dict[str, int] = {}
    for finding in _walk(context, above):
        found[finding.rule] = found.get(finding.rule, 0) + 1
        if found[finding.rule] <= _SHOWN:
            yield finding
    if division == "open":
        yield from _mapping(context, above)


def _walk(context: Context, above: str) -> Iterator[Finding]:
    official = None if (context.at(above) / "results").is_dir() else Official.SILENT  # it passes such a submitter over
    for folder, below, names in os.walk(context.at(above)):
        below.sort()
        where = os.path.relpath(folder, context.root).replace(os.sep, "/")
        for rule in _folder_faults(os.path.basename(folder), is_empty=not below and not names):
            yield Finding(where, rule, result=above, official=official)
        for name in sorted(names):
            most = context.requirements.tree.max_file_bytes
            for rule, observed, required in _file_faults(os.path.join(folder, name), name, most):
                yield Finding(f"{where}/{name}", rule, "", observed, required, above, official)


def _folder_faults(name: str, is_empty: bool) -> Iterator[str]:
    if name.startswith("."):
        yield "hidden-name"
    if " " in name:
        yield "space-in-name"
    if name.endswith("__pycache__"):
        yield "pycache"
    if is_empty:
        yield "empty-folder"


def _file_faults(path: str, name: str, most: int) -> Iterator[tuple[str, str, str]]:
    """(rule, observed, required)."""
    if name.startswith("."):
        yield "hidden-name", name, ""
    if " " in name:
        yield "space-in-name", name, ""
    try:
        size = os.stat(path).st_size
    except OSError:
        yield "broken-link", "no file there", ""
        return
    if size > most:
        yield "big-file", f"{size / 2**20:.1f} MB", f"at most {most >> 20} MB"


def _mapping(context: Context, above: str) -> Iterator[Finding]:
    file = context.at(above) / "model_mapping.json"
    if not file.exists():
        return
    names, fault = read_object(file)
    if names is None or not all(isinstance(name, str) for name in names.values()):
        yield Finding(
            f"{above}/model_mapping.json",
            "mapping-unreadable",
            observed=fault or "a name that is no text",
            required="an object of texts",
            result=above,
        )


def own_names(context: Context, division: str, submitter: str) -> dict[str, str]:
    """The submitter's names of models in open; empty if there are none, or they cannot be read."""
    if division != "open":
        return {}
    names, _ = read_object(context.at(f"{division}/{submitter}/model_mapping.json"))
    return {name: to for name, to in (names or {}).items() if isinstance(to, str)}
