"""What this project can do, as a menu: `nox -l`.

`nox -s bert` sets up and runs a benchmark's miniature, `nox -s tests` everything that must pass. The same
file serves the whole suite, a sparse checkout and a fork: benchmarks are the folders that are there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from itertools import pairwise
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = []  # plain `nox` would start hours of work: it shows the menu instead

ROOT = Path(__file__).parent
BENCHMARKS = sorted(project.parent.name for project in ROOT.glob("benchmarks/*/pyproject.toml"))
CHECKERS = ("mypy==2.4.1", "ruff==0.17.6")
TESTERS = ("pytest==9.2.0", "hypothesis==6.170.15")
HARNESS = ("-e", "./loadgen[harness]")
TOOLS = {  # session `<tool>-<benchmark>` runs tools/<tool>.py: what it needs, what it does
    "lock": ("pip", "Choose the newest versions for {} and write its requirements.lock."),
    "image": ("docker==7.2.0", "Build the image of {} and prove it by running it."),
    "fork": ("nox", "Write {} and what it needs, alone, to the folder after --, and prove it there."),
}


def install(session: nox.Session, *requirements: str, lock: Path | None = None) -> None:
    """Install what is missing: an environment that has it already is used again, offline too.

    `lock` is a constraints file: what is installed is what was tested. The stamp's first line says what
    the environment was made from, the others what it has, so that a second backend only adds to it. uv
    reads find-links under a name of its own. Build services set CI, and their disks are small.
    """
    here = Path(session.virtualenv.location)
    for other in set(here.parent.glob("tests-*")) - {here} if os.environ.get("CI") else ():
        shutil.rmtree(other)  # nine of them take 26 GB
    if "PIP_FIND_LINKS" in os.environ:
        session.env.setdefault("UV_FIND_LINKS", ",".join(os.environ["PIP_FIND_LINKS"].split()))
    sources = [*ROOT.glob("loadgen/pyproject.toml"), *((lock, lock.with_name("pyproject.toml")) if lock else ())]
    texts = [str(ROOT), *CHECKERS, *TESTERS, *(source.read_text() for source in sources)]
    origin = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    stamp = here / "installed.txt"
    made_from, *present = stamp.read_text().splitlines() if stamp.is_file() else [""]
    present = present if made_from == origin else []
    if set(requirements) <= set(present):
        return
    stamp.unlink(missing_ok=True)
    session.install(*(("-c", str(lock)) if lock else ()), *requirements)
    stamp.write_text("\n".join([origin, *present, *requirements]))


def pytest(session: nox.Session, folder: Path, *options: str) -> None:
    """Run the tests below `folder`, from it: else importlib mode takes `loadgen/` for the package."""
    with session.chdir(folder):
        session.run("pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", ".", *options, *session.posargs)


def backend_extras(name: str, arguments: list[str]) -> str:
    """The miniature's backend, which is the first extra in the pyproject, and the one asked for."""
    project = nox.project.load_toml(ROOT / "benchmarks" / name / "pyproject.toml")["project"]
    known = list(project["optional-dependencies"])
    words = " ".join(arguments).replace("--backend=", "--backend ").split()
    asked = [value for option, value in pairwise(words) if option == "--backend"]
    return ",".join([known[0], *(extra for extra in known[1:] if extra in asked)])


def register(name: str) -> None:
    """The sessions of one benchmark."""
    folder, package = ROOT / "benchmarks" / name, f"./benchmarks/{name}"
    lock = folder / "requirements.lock"

    @nox.session(name=name)
    def run(session: nox.Session) -> None:
        install(session, *HARNESS, "-e", f"{package}[{backend_extras(name, session.posargs)}]", lock=lock)
        with session.chdir(session.invoked_from):  # where relative paths begin
            session.run("python", "-m", f"bench_{name}", *session.posargs, interrupt_timeout=None)  # writes its report

    @nox.session(name=f"tests-{name}")
    def tests(session: nox.Session) -> None:
        install(session, *HARNESS, "-e", f"{package}[tests]", *CHECKERS, *TESTERS, lock=lock)
        with session.chdir(folder):
            session.run("mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", f"bench_{name}")
        # loadgen's own tests have no frameworks, so the rooms that use them are tested here
        pytest(session, folder, "tests", "../../loadgen/tests/harness/runtimes")

    run.__doc__ = f"Run {name}: the miniature by default; arguments after -- go to `python -m bench_{name}`."
    tests.__doc__ = f"Type-check and test benchmarks/{name}."
    for tool in TOOLS:
        register_tool(tool, name)


def register_tool(tool: str, name: str) -> None:
    requirement, summary = TOOLS[tool]

    @nox.session(name=f"{tool}-{name}")
    def run_tool(session: nox.Session) -> None:
        install(session, requirement)
        with session.chdir(session.invoked_from):
            session.run("python", str(ROOT / "tools" / f"{tool}.py"), name, *session.posargs)

    run_tool.__doc__ = summary.format(name)


for benchmark in BENCHMARKS:
    register(benchmark)


@nox.session(python=False)
def images(session: nox.Session) -> None:
    """Build and prove every image, where a container engine answers."""
    for name in BENCHMARKS:
        session.notify(f"image-{name}", posargs=["--skip-without-engine", *session.posargs])


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Everything that must pass: lint, types, repository rules (in the whole suite), loadgen, every benchmark."""
    rules = ["tests-rules"] if (ROOT / "tests").is_dir() else []  # a fork has none
    for name in ("lint", "typing", *rules, "tests-loadgen", *(f"tests-{name}" for name in BENCHMARKS)):
        session.notify(name, posargs=[])


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    install(session, *CHECKERS)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Type-check loadgen and tools strictly (a benchmark is checked with its tests)."""
    install(session, *HARNESS, *CHECKERS, "nox")
    session.run("mypy", "-p", "loadgen")
    session.run("mypy", "noxfile.py", *(str(tool) for tool in sorted(ROOT.glob("tools/*.py"))))


@nox.session(name="tests-rules")
def tests_rules(session: nox.Session) -> None:
    """Test the rules of the repository: layout, imports, docs."""
    install(session, *TESTERS, TOOLS["image"][0])
    pytest(session, ROOT, "tests")


@nox.session(name="tests-loadgen")
def tests_loadgen(session: nox.Session) -> None:
    """Test loadgen (the official wheel is not needed)."""
    install(session, "-e", "./loadgen[harness,ray,submission]", *TESTERS)
    pytest(session, ROOT / "loadgen", "--ignore", "tests/parity")


@nox.session
@nox.parametrize("wheel", ["4.0", "6.0.17"])
def parity(session: nox.Session, wheel: str) -> None:
    """Compare loadgen with an official wheel; `-- --seed 5 --cases 500` draws other settings."""
    install(session, "-e", "./loadgen", f"mlcommons-loadgen=={wheel}", "pyyaml", *TESTERS)
    pytest(session, ROOT / "loadgen" / "tests" / "parity", "-q", "-s", "--import-mode", "prepend")


@nox.session
def overhead(session: nox.Session) -> None:
    """Time loadgen beside the official wheel 4.0: 40 minutes; `-- --pairs 3 --only Tokens` for a part."""
    install(session, "-e", "./loadgen", "mlcommons-loadgen==4.0")
    session.run("python", "loadgen/benchmarks/overhead.py", *session.posargs)
