"""A system's description: what its machine told, what a person told, and which fields nobody did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from loadgen.errors import InputError
from loadgen.submission.checks.systems import filled
from loadgen.submission.reading import read_object
from loadgen.submission.requirements import Requirements
from loadgen.submission.runs import RunFolder

HINTS = {
    "status": "available, preview or rdi",
    "system_type": "datacenter, edge, or both with a comma",
    "system_name": "as people call it",
    "cooling": "such as air or liquid",
    "host_memory_configuration": "such as 24x 64GB DDR5-4800",
    "host_networking": "such as Ethernet",
    "host_networking_topology": "such as N/A",
    "accelerator_memory_configuration": "such as HBM3e",
    "number_of_nodes": "a number",
}
"""What a field is about, where its name alone does not say."""


def found_by(runs: Sequence[RunFolder]) -> dict[str, str]:
    """What the machine of these runs said. Raises InputError if they ran on different ones."""
    first, *others = runs
    for other in others:
        differs = [key for key in {**first.system, **other.system} if first.system.get(key) != other.system.get(key)]
        if differs:
            key = differs[0]
            raise InputError(
                f"{other.folder} ran on another system than {first.folder} ({key}: {other.system.get(key)}, "
                f"{first.system.get(key)}): build each system for itself"
            )
    found = dict(first.system)
    versions = dict.fromkeys(_versions(runs))
    if versions:
        found["framework"] = ", ".join(versions)
    found["other_software_stack"] = ", ".join(
        f"{name} {version}" for name, version in first.machine.items() if name in ("python", "numpy", "gpu driver")
    )
    found |= {"hw_notes": "", "sw_notes": "", "system_type_detail": ""}
    if first.options.get("workers", "").startswith("ray"):
        return found
    return {"number_of_nodes": "1", **found}


def _versions(runs: Iterable[RunFolder]) -> Iterable[str]:
    """Of what the backends said that they used: `onnxruntime 1.23.2`."""
    for run in runs:
        for name, value in run.options.items():
            if name.endswith(" version"):
                yield f"{name.removesuffix(' version')} {value}"


def complete(
    requirements: Requirements, told: Mapping[str, str], found: Mapping[str, str], also: Sequence[str] = ()
) -> dict[str, str]:
    """The whole description, its fields in the round's order. What is told counts more than what is found.

    also: what is missing elsewhere, so that all of it is said at once. Raises InputError that lists what is missing,
    and for a field that the round does not have.
    """
    tree = requirements.tree
    known = list(dict.fromkeys([*tree.system_fields, "system_type", *tree.power_fields, *tree.network_fields]))
    later = Requirements().tree.system_fields  # what an older round does not ask for is left out
    strange = [name for name in told if name not in (*known, *later)]
    if strange:
        raise InputError(
            f"round {requirements.round.name} has no field {', '.join(strange)}; it has {', '.join(known)}"
        )
    both = {**{name: "" for name in tree.system_fields if name not in filled(requirements)}, **found, **told}
    missing = [*missing_fields(requirements, both), *also]
    if missing:
        lines = [f"  --set {name}=...{f'  ({HINTS[name]})' if name in HINTS else ''}" for name in missing]
        raise InputError(
            "the machine does not tell what follows: give it, or all in a file by --description\n" + "\n".join(lines)
        )
    return {name: both[name] for name in known if name in both}


def missing_fields(requirements: Requirements, described: Mapping[str, str]) -> list[str]:
    """Fields of the round that have no value yet, though they must."""
    wanted = filled(requirements) or {"status", "system_type", "system_name"}
    return [name for name in requirements.tree.system_fields if name in wanted and not described.get(name)]


def read_description(file: Path) -> dict[str, str]:
    """A description as a person wrote it. Raises InputError that names the file."""
    said, fault = read_object(file)
    if said is None:
        raise InputError(f"{file}: {fault}: give a JSON object of the system's fields")
    bad = [name for name, value in said.items() if not isinstance(value, (str, int, float))]
    if bad:
        raise InputError(f"{file}: {bad[0]} is neither a text nor a number")
    return {name: str(value) for name, value in said.items()}
