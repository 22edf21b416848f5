"""What the documents say is so: commands exist, links lead somewhere."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("*.md", "docs/*.md", "loadgen/*.md", "benchmarks/*/*.md")
PAGES = sorted(page for pattern in FOLDERS for page in ROOT.glob(pattern))
BENCHMARKS = [project.parent.name for project in ROOT.glob("benchmarks/*/pyproject.toml")]
NO_AFFILIATION = "not affiliated with or endorsed by MLCommons"


def sessions(noxfile: Path, source: str) -> set[str]:
    """The sessions that nox would list: the noxfile runs with a `nox` that only notes their names."""
    names: set[str] = set()

    def session(function: Any = None, *, name: str | None = None, **_: Any) -> Any:
        if function is None:
            return lambda decorated: session(decorated, name=name)
        names.add(name or function.__name__)
        return function

    nox: Any = ModuleType("nox")
    nox.session, nox.options = session, SimpleNamespace()
    nox.parametrize = lambda *_: lambda function: function
    with patch.dict(sys.modules, nox=nox):
        exec(compile(source, noxfile, "exec"), {"__file__": str(noxfile), "__name__": "noxfile"})
    return names


SESSIONS = sessions(ROOT / "noxfile.py", (ROOT / "noxfile.py").read_text())


def session_faults(names: set[str], benchmarks: list[str]) -> set[str]:
    """Sessions that every benchmark has, and the suite, but this noxfile has not."""
    wanted = {"tests", "images", "lint", "typing", "parity", "tests-loadgen", "tests-rules"}
    kinds = ("", "tests-", "lock-", "image-", "fork-")
    return (wanted | {f"{kind}{name}" for name in benchmarks for kind in kinds}) - names


def unknown_sessions(text: str) -> list[str]:
    return [name for name in re.findall(r"nox -s ([\w-]+)", text) if name not in SESSIONS]


def anchors(text: str) -> set[str]:
    """The addresses of a page's headings, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path, text: str) -> list[str]:
    """Links to a file, or a heading of one, that is not there. Web addresses are not looked up."""
    dead = []
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        inside = file.is_relative_to(ROOT) and file.exists()
        if not inside or (anchor and anchor not in anchors(file.read_text())):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_sessions_and_links_exist(page: Path) -> None:
    text = page.read_text()
    assert unknown_sessions(text) == []
    assert dead_links(page, text) == []


def test_the_suite_and_every_benchmark_have_their_sessions() -> None:
    assert session_faults(SESSIONS, BENCHMARKS) == set()


def test_a_new_folder_has_sessions_without_a_change_of_the_noxfile(tmp_path: Path) -> None:
    project = tmp_path / "benchmarks" / "rnnt" / "pyproject.toml"
    project.parent.mkdir(parents=True)
    project.touch()
    source = (ROOT / "noxfile.py").read_text()
    assert session_faults(sessions(tmp_path / "noxfile.py", source), ["rnnt"]) == set()
    without_loop = source.replace("    register(benchmark)", "    pass")
    assert "rnnt" in session_faults(sessions(tmp_path / "noxfile.py", without_loop), ["rnnt"])


@pytest.mark.parametrize("text", ["run `nox -s brewcoffee`", "nox -s tests-alexnet -- -k x"])
def test_a_planted_session_is_caught(text: str) -> None:
    assert unknown_sessions(text)
    assert not unknown_sessions("`nox -s tests` and `nox -s parity -- --seed 5`")


@pytest.mark.parametrize("target", ["no/such/file.md", "../outside.md", "#no-such-heading", "LICENSE#no-heading"])
def test_a_planted_link_is_caught(target: str) -> None:
    readme = ROOT / "README.md"
    assert dead_links(readme, f"[x]({target})") == [target]
    assert dead_links(readme, "[x](LICENSE) [y](#what-this-is) [z](https://example.org/none)") == []


def commands(text: str) -> set[str]:
    """The nox commands of a page's first block of shell."""
    block = re.search(r"```sh\n(.*?)```", text, re.S)
    return set(re.findall(r"nox -s [\w-]+", block.group(1))) if block else set()


def test_ci_runs_the_commands_of_the_readme() -> None:
    ci = re.findall(r"^(?!\s*#).*?(nox -s [\w-]+)", (ROOT / ".ci" / "run").read_text(), re.M)
    readme = commands((ROOT / "README.md").read_text())
    assert readme == {"nox -s bert", "nox -s tests"}
    assert readme | {"nox -s image-bert"} <= set(ci)
    assert commands("```sh\npip install nox && nox -s rnnt  # x\n```\nnox -s lint") == {"nox -s rnnt"}


def claims_no_affiliation(text: str) -> bool:
    return NO_AFFILIATION in " ".join(text.split()).lower().replace("mlcommons", "MLCommons")


@pytest.mark.parametrize("page", ["README.md", "loadgen/README.md"])
def test_a_readme_claims_no_affiliation(page: str) -> None:
    assert claims_no_affiliation((ROOT / page).read_text())
    assert not claims_no_affiliation("This is an MLCommons project.")


def test_the_complete_system_is_as_short_as_promised() -> None:
    promised = re.search(r"a complete system in (\d+) lines", (ROOT / "README.md").read_text())
    code = re.search(r"```python\n(.*?)```", (ROOT / "loadgen" / "README.md").read_text(), re.S)
    assert promised
    assert code
    assert 0 < len([line for line in code.group(1).splitlines() if line.strip()]) <= int(promised.group(1))


def record_fields(source: str) -> list[str]:
    """The keys of the dictionary that `result_record` returns."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    (record,) = [node for node in functions if node.name == "result_record"]
    (literal,) = [node.value for node in ast.walk(record) if isinstance(node, ast.Return)]
    assert isinstance(literal, ast.Dict)
    return [key.value for key in literal.keys if isinstance(key, ast.Constant)]


def test_every_field_of_result_json_is_described() -> None:
    page = ROOT / "docs" / "results.md"
    fields = record_fields((ROOT / "loadgen/src/loadgen/outcome.py").read_text())
    rows = re.findall(r"^\| (`.*?) \|", page.read_text().split("## result.json")[1], re.M)
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(described) == sorted(fields)


def test_every_build_argument_of_an_image_is_described() -> None:
    dockerfile = (ROOT / "benchmarks" / BENCHMARKS[0] / "Dockerfile").read_text()
    arguments = set(re.findall(r"^ARG (\w+)", dockerfile, re.M)) - {"SOURCE", "REVISION"}  # tools/image.py gives these
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \|", (ROOT / "docs" / "images.md").read_text(), re.M)
    assert arguments == {name for row in rows for name in re.findall(r"\w+", row)}
