"""What the documents say is so: commands exist, links lead somewhere."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
FOLDERS = ("*.md", "docs/**/*.md", "loadgen/*.md", "benchmarks/*/*.md")
PAGES = sorted(page for pattern in FOLDERS for page in ROOT.glob(pattern))
BENCHMARKS = [project.parent.name for project in ROOT.glob("benchmarks/*/pyproject.toml")]
NO_AFFILIATION = "not affiliated with or endorsed by MLCommons"


def sessions(noxfile: Path, source: str) -> dict[str, Callable[[Any], None]]:
    """The sessions that nox would list: the noxfile runs with a `nox` that only notes them by their names."""
    found: dict[str, Callable[[Any], None]] = {}

    def session(function: Any = None, *, name: str | None = None, **_: Any) -> Any:
        if function is None:
            return lambda decorated: session(decorated, name=name)
        found[name or function.__name__] = function
        return function

    nox: Any = ModuleType("nox")
    nox.session, nox.options = session, SimpleNamespace()
    nox.parametrize = lambda *_: lambda function: function
    nox.project = SimpleNamespace(load_toml=lambda file: tomllib.loads(file.read_text()))
    with patch.dict(sys.modules, nox=nox):
        exec(compile(source, noxfile, "exec"), {"__file__": str(noxfile), "__name__": "noxfile"})
    return found


SESSIONS = sessions(ROOT / "noxfile.py", (ROOT / "noxfile.py").read_text())


def session_faults(names: Collection[str], benchmarks: list[str]) -> set[str]:
    """Sessions that every benchmark has, and the suite, but this noxfile has not."""
    wanted = {"tests", "images", "lint", "typing", "parity", "tests-loadgen", "tests-rules"}
    kinds = ("", "tests-", "lock-", "image-", "fork-")
    return (wanted | {f"{kind}{name}" for name in benchmarks for kind in kinds}) - set(names)


def unknown_sessions(text: str) -> list[str]:
    """`nox -s lock-<folder>` stands for any benchmark's."""
    return [name for name in re.findall(r"nox -s ([\w-]+)(?![\w<-])", text) if name not in SESSIONS]


def calls(source: str) -> Iterator[tuple[str, list[str]]]:
    """(name of what is called, its arguments that are plain text) of every call of a method in a Python file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield node.func.attr, texts


def declared(method: str, *patterns: str) -> set[str]:
    """The words that calls of a method declare: options, or the names of commands."""
    sources = [file.read_text() for pattern in patterns for file in ROOT.glob(pattern)]
    return {text for source in sources for name, texts in calls(source) if name == method for text in texts}


HARNESS = "loadgen/src/loadgen/harness/**/*.py"
COMMANDS = declared("command", HARNESS) | declared("group", HARNESS)
"""Of a benchmark."""
CORE_COMMANDS = declared("add_parser", "loadgen/src/loadgen/*.py")
"""Of `python -m loadgen`."""
SCRIPTS = (HARNESS, "tools/*.py", "loadgen/benchmarks/*.py", "benchmarks/*/bench_*/**/*.py", "benchmarks/*/speed/*.py")
OPTIONS = {
    *declared("option", HARNESS),
    *declared("add_argument", *SCRIPTS, "loadgen/src/loadgen/*.py"),
    *declared("addoption", "loadgen/tests/parity/*.py", "loadgen/tests/submission/*.py"),
    "--help",
}
OTHERS_OPTIONS = set("--tmpfs --user --network --memory --gpus --cpus --cpuset-cpus --userns --index-url".split())
"""Of Docker, Podman and pip, which pages name by themselves."""
OTHERS_OPTIONS |= {"--build-arg"}


def spans(text: str) -> Iterator[str]:
    """Each piece of code in a page: what stands between backticks, and each line of a block of shell."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        yield from block.replace("\\\n", " ").splitlines()
    for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S)):
        yield " ".join(span.split())


def unknown_commands(text: str) -> list[str]:
    """Commands of a benchmark or of loadgen that are not there: `nox -s bert -- brew`, `python -m loadgen brew`."""
    names = "|".join(BENCHMARKS)
    own = rf"(?:nox -s (?:{names}) --|python -m bench_(?:{names})) ([a-z][\w-]*)"
    unknown = []
    for span in spans(text):
        unknown += [name for name in re.findall(own, span) if name not in COMMANDS]
        unknown += [name for name in re.findall(r"python -m loadgen ([a-z]\w*)", span) if name not in CORE_COMMANDS]
    return unknown


def unknown_options(text: str) -> list[str]:
    """Options that no command of ours has, in our commands and by themselves."""
    unknown = []
    for span in spans(text):
        ours = re.search(r"(?:nox -s [\w-]+ -- |python (?:-m (?:bench_|loadgen)|\S+\.py)|^(?=--))(.*)", span)
        found = re.findall(r"(?<!\S)(--[a-z](?:[\w-]|\.\d)*)", ours.group(1).split(" #")[0]) if ours else []
        unknown += [option for option in found if option not in OPTIONS | OTHERS_OPTIONS]
    return unknown


def unknown_names(text: str) -> list[str]:
    """Dotted names below `loadgen` that are neither a module nor something in one, imported ones too."""
    found = re.findall(r"(?<![\w./-])loadgen(?:\.\w+)+(?:[.:]\w+)?(?!/)", text)
    imported = re.findall(r"from (loadgen[\w.]*) import ([\w, ]+)", text)
    found += [f"{module}.{name.split()[0]}" for module, names in imported for name in names.split(",")]
    return [name for name in found if not is_name(name.replace(":", ".").split("."))]


def is_name(parts: list[str]) -> bool:
    """Is this a module or package, or a name at the top of one, or of a class there?"""
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath("loadgen", "src", *parts[:count])
        files = [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
        if files:
            return count == len(parts) or parts[count] in top_names(files[0].read_text())
    return False


def top_names(source: str) -> set[str]:
    """Names that a module defines or imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def missing_files(page: Path, text: str) -> list[str]:
    """Files of this repository that are named by their path, but are not there."""
    roots = r"(?:loadgen|benchmarks|tests|tools|docs|\.ci)/[\w./-]*\w"
    if page.parent.parent == ROOT / "benchmarks":
        roots += rf"|(?:bench_{page.parent.name}|tests|speed)/[\w./-]*\w"
    there = (re.sub(r"^(cp \S+) .*", r"\1", span) for span in spans(text))  # a copy is yet to be made
    named = re.findall(rf"(?<![\w./*-])(?:{roots})(?![\w*<{{-])", "\n".join(there))
    return [name for name in named if not any((place / name).exists() for place in (ROOT, page.parent))]


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
def test_sessions_commands_names_and_links_exist(page: Path) -> None:
    text = page.read_text()
    assert unknown_sessions(text) == []
    assert unknown_commands(text) == []
    assert unknown_options(text) == []
    assert unknown_names(text) == []
    assert missing_files(page, text) == []
    assert dead_links(page, text) == []


def test_every_page_is_reached_from_the_readme() -> None:
    found = {ROOT / "README.md"}
    for _ in PAGES:
        found |= {target for page in found for target in linked(page)}
    assert [str(page) for page in ROOT.glob("docs/**/*.md") if page not in found] == []


def linked(page: Path) -> set[Path]:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    return {file for target in targets if (file := (page.parent / target).resolve()).suffix == ".md"}


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


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (unknown_commands, "`nox -s bert -- brew`"),
        (unknown_commands, "```sh\npython -m bench_bert brew --data x\n```"),
        (unknown_commands, "`python -m loadgen brew`"),
        (unknown_options, "`nox -s bert -- run --strength 5`"),
        (unknown_options, "`--strength 5`"),
        (unknown_options, "```sh\nnox -s bert -- run \\\n    --strength 5\n```"),
        (unknown_names, "`loadgen.contracts.Teapot`"),
        (unknown_names, "```python\nimport loadgen.kitchen\n```"),
        (unknown_names, "```python\nfrom loadgen.run import run, brew\n```"),
    ],
)
def test_a_planted_word_is_caught(check: Callable[[str], list[str]], text: str) -> None:
    assert len(check(text)) == 1
    good = (
        "`nox -s bert -- run --qps 5` `--batch` `loadgen.contracts.Backend` `python -m loadgen demo` `docker run --rm`"
    )
    assert check(good) == []


def test_a_planted_path_is_caught() -> None:
    page = ROOT / "docs" / "run.md"
    assert missing_files(page, "`cp benchmarks/bert/teapot.py x`") == ["benchmarks/bert/teapot.py"]
    assert missing_files(page, "`benchmarks/bert/user.conf` `benchmarks/*/tests`") == []


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
    fields = record_fields((ROOT / "loadgen/src/loadgen/logs/result.py").read_text())
    rows = re.findall(r"^\| (`.*?) \|", page.read_text().split("## result.json")[1], re.M)
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(described) == sorted(fields)


def test_compliance_says_how_much_is_recorded() -> None:
    golden = json.loads((ROOT / "loadgen/tests/golden/compliance_4_0.json").read_text())
    speeds = sum(len(case["said"]) for case in golden["performance"])
    said = f"for {speeds} speeds, {len(golden['answers'])} pairs of logs and {len(golden['tokens'])} of tokens"
    assert said in " ".join((ROOT / "docs" / "compliance.md").read_text().split())


def test_every_option_is_named_by_a_page() -> None:
    source = (ROOT / "loadgen/src/loadgen/harness/cli.py").read_text()
    hidden = set(re.findall(r'"(--[a-z-]+)", is_flag=True, hidden=True', source))
    options = set(re.findall(r'"(--[a-z][a-z-]+)"', source)) - hidden
    assert len(options) > 30
    options.discard("--version")  # of a whole command line, and what anybody tries
    named = set(re.findall(r"--[a-z][a-z-]+", "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))))
    assert options - named == set()


def test_every_build_argument_of_an_image_is_described() -> None:
    dockerfile = (ROOT / "benchmarks" / BENCHMARKS[0] / "Dockerfile").read_text()
    arguments = set(re.findall(r"^ARG (\w+)", dockerfile, re.M)) - {"SOURCE", "REVISION"}  # tools/image.py gives these
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \|", (ROOT / "docs" / "images.md").read_text(), re.M)
    assert arguments == {name for row in rows for name in re.findall(r"\w+", row)}


def test_the_backend_and_the_system_shown_are_those_that_are_tested() -> None:
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "add-a-backend.md").read_text(), re.S)
    folder = ROOT / "benchmarks" / "bert" / "tests"
    assert shown == [(folder / f"own_{what}.py").read_text() for what in ("backend", "system")]


def literals(source: str, *names: str) -> set[str]:
    """All texts in what is assigned, or added, to these names at the top of a module."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, (ast.Assign, ast.AugAssign))]
    targets = ((node.targets[0] if isinstance(node, ast.Assign) else node.target, node.value) for node in nodes)
    values = [value for target, value in targets if isinstance(target, ast.Name) and target.id in names]
    constants = (node for value in values for node in ast.walk(value) if isinstance(node, ast.Constant))
    return {node.value for node in constants if isinstance(node.value, str)}


def test_the_guide_names_every_file_of_a_benchmark() -> None:
    guide = (ROOT / "docs" / "add-a-benchmark.md").read_text()
    layout = (ROOT / "tests" / "test_layout.py").read_text()
    files = literals(layout, "FILES") | {f"{Path(module).name}.py" for module in literals(layout, "MODULES")}
    wanted = {f"{name}`" for name in files} | {f"`{heading}`" for heading in literals(layout, "HEADINGS")}
    assert len(wanted) > 10
    assert {name for name in wanted if name not in guide} == set()


def rooms(folder: Path) -> set[str]:
    """The modules and packages in a folder of code, without what begins with an underscore."""
    modules = {file.stem for file in folder.glob("*.py")}
    return {name for name in modules | {door.parent.name for door in folder.glob("*/__init__.py")} if name[0] != "_"}


def test_the_design_names_every_module_of_the_core_and_every_room_of_the_harness() -> None:
    core = ROOT / "loadgen" / "src" / "loadgen"
    table = (ROOT / "docs" / "design.md").read_text().split("## loadgen, from the bottom")[1].split("\n## ")[0]
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", table))))
    assert (rooms(core) | rooms(core / "harness")) - named == set()


def session_at(location: Path, **parts: Any) -> SimpleNamespace:
    virtualenv = SimpleNamespace(location=str(location))
    does = {"run": lambda *_: None, "install": lambda *_: None, "chdir": contextlib.chdir}
    return SimpleNamespace(**{"posargs": [], "virtualenv": virtualenv, "env": {}} | does | parts)


def test_relative_paths_begin_where_nox_was_called(tmp_path: Path) -> None:
    """`cd elsewhere; nox -f ../noxfile.py -s bert -- report out`: nox itself goes to the noxfile's folder."""
    place, seen = ROOT / "tools", []

    def note(*words: str, **_: object) -> None:
        seen.append((Path.cwd(), words))

    for name in ("bert", "fork-bert"):
        SESSIONS[name](session_at(tmp_path, posargs=["report", "out"], invoked_from=str(place), run=note))
    assert [folder for folder, _ in seen] == [place, place]
    assert seen[0][1] == ("python", "-m", "bench_bert", "report", "out")
    assert Path(seen[1][1][1]) == ROOT / "tools" / "fork.py"


@pytest.mark.parametrize(("ci", "kept"), [("true", ["bert", "tests-bert"]), ("", ["bert", "tests-bert", "tests-rnnt"])])
def test_a_build_service_keeps_one_test_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ci: str, kept: list[str]
) -> None:
    """Those of nine benchmarks filled its disk; a person's are used again."""
    monkeypatch.setenv("CI", ci)
    for name in ("bert", "tests-bert", "tests-rnnt"):
        (tmp_path / name / "lib").mkdir(parents=True)
    SESSIONS["tests-bert"](session_at(tmp_path / "tests-bert"))
    assert sorted(folder.name for folder in tmp_path.iterdir()) == kept
