"""What the documents say is so: commands exist, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("*.md", "docs/*.md", "loadgen/*.md", "benchmarks/*/*.md")
PAGES = sorted(page for pattern in FOLDERS for page in ROOT.glob(pattern))
BENCHMARKS = {project.parent.name for project in ROOT.glob("benchmarks/*/pyproject.toml")}


def sessions() -> set[str]:
    """The names of the noxfile's sessions."""
    source = (ROOT / "noxfile.py").read_text()
    named = set(re.findall(r'@nox\.session\(name="([\w-]+)"', source))
    plain = set(re.findall(r"@nox\.session(?:\(python=False\))?\n(?:@nox\.parametrize.*\n)?def (\w+)", source))
    per_benchmark = set(re.findall(r'name=f"([\w-]+)-\{name\}"', source))
    return named | plain | BENCHMARKS | {f"{kind}-{name}" for kind in per_benchmark for name in BENCHMARKS}


def unknown_sessions(text: str) -> list[str]:
    return [name for name in re.findall(r"nox -s ([\w-]+)", text) if name not in sessions()]


def dead_links(page: Path, text: str) -> list[str]:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    return [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_sessions_and_links_exist(page: Path) -> None:
    text = page.read_text()
    assert unknown_sessions(text) == []
    assert dead_links(page, text) == []


def test_planted_faults_are_caught() -> None:
    assert unknown_sessions("run `nox -s brewcoffee`")
    assert dead_links(ROOT / "README.md", "[x](no/such/file.md)")
    assert {"tests", "lint", "parity", "tests-loadgen"} <= sessions()


def test_ci_runs_the_commands_of_the_readme() -> None:
    """Every nox command of the README's first code block is run by .ci/run."""
    block = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[0]
    ci = (ROOT / ".ci" / "run").read_text()
    commands = re.findall(r"nox -s [\w-]+", block)
    assert commands
    assert [command for command in commands if command not in ci] == []


def test_the_readme_claims_no_affiliation() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    assert "not affiliated with or endorsed by MLCommons" in text
