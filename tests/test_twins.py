"""Copies that two benchmarks need are marked, and stay the same; a third copy belongs in loadgen (docs/design.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"^# Twin of: (\S+)::(\w+)\n(?:@.*\n)*(?:def|class) (\w+)", re.MULTILINE)
LONG = 6  # lines of a function from which a copy is worth a mark
PLACES = ("benchmarks/*/bench_*/**/*.py", "benchmarks/*/speed/*.py")
FILES = {str(path.relative_to(ROOT)): path.read_text() for place in PLACES for path in sorted(ROOT.glob(place))}


def definitions(source: str) -> dict[str, tuple[str, int]]:
    """Name of each function and class at the top of a file -> (what it says, without its place; its lines)."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    own = re.sub(r"\bbench_\w+", "bench", source)  # a package names itself
    nodes = [node for node in ast.parse(own).body if isinstance(node, kinds)]
    return {node.name: (ast.dump(node), (node.end_lineno or 0) - node.lineno + 1) for node in nodes}


def marks(files: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """(file, name, the file and name of its twin) of every mark."""
    for path, source in files.items():
        yield from ((path, found[3], found[1], found[2]) for found in MARK.finditer(source))


def drifted(files: dict[str, str]) -> list[str]:
    """Marked copies that differ from their twin, or have none."""
    known = {path: definitions(source) for path, source in files.items()}
    return [
        f"{path}::{name} is no longer as {other}::{twin}: change both, or take the mark away"
        for path, name, other, twin in marks(files)
        if known[path][name][0] != known.get(other, {}).get(twin, ("", 0))[0]
    ]


def unmarked(files: dict[str, str]) -> list[str]:
    """Copies without a mark, of functions and classes that are long enough."""
    known = {(path, name) for path, name, *_ in marks(files)}
    places: dict[str, list[tuple[str, str]]] = {}
    for path, source in files.items():
        for name, (text, lines) in definitions(source).items():
            if lines >= LONG:
                places.setdefault(text, []).append((path, name))
    return [
        f"{path}::{name} is a copy: mark it `# Twin of: {copies[0][0]}::{copies[0][1]}`"
        for copies in places.values()
        for path, name in copies[1:]
        if (path, name) not in known
    ]


def test_twins_are_the_same() -> None:
    assert drifted(FILES) == []


def test_copies_are_marked() -> None:
    assert unmarked(FILES) == []


ONE = "def f(x: int) -> int:\n    y = x\n    y += 1\n    y += 2\n    y += 3\n    return y\n"
A, B = "benchmarks/a/bench_a/x.py", "benchmarks/b/bench_b/x.py"


@pytest.mark.parametrize("changed", ["y += 4", "y -= 2"])
def test_a_planted_drift_is_caught(changed: str) -> None:
    marked = f"# Twin of: {A}::f\n{ONE}"
    assert drifted({A: ONE, B: marked}) == []
    assert len(drifted({A: ONE, B: marked.replace("y += 2", changed)})) == 1
    assert len(drifted({B: marked})) == 1, "a twin that is gone"


def test_a_planted_copy_is_caught() -> None:
    source = f"from bench_a.y import z\n\n{ONE}"
    assert len(unmarked({A: source, B: source.replace("bench_a", "bench_b")})) == 1
    assert unmarked({A: source, B: f"# Twin of: {A}::f\n{ONE}"}) == []
    assert unmarked({A: ONE.replace("    y += 1\n", ""), B: ONE.replace("    y += 1\n", "")}) == [], (
        "too short to matter"
    )
