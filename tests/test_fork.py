"""A fork is the whole suite, pruned as git prunes a sparse checkout, and can take what comes later."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("loadgen", "tools", "benchmarks/bert")
PAGE = ROOT / "docs" / "fork.md"
SOME = [
    "CONTRIBUTING.md",
    "noxfile.py",
    "tools/fork.py",
    "loadgen/pyproject.toml",
    "docs/design.md",
    "tests/test_fork.py",
]
SOME += ["benchmarks/bert/user.conf", "benchmarks/bert/bench_bert/benchmark.py", "benchmarks/resnet50/user.conf"]


@pytest.fixture(autouse=True)
def _a_known_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's settings, and a name for commits."""
    (tmp_path / "settings").write_text("[user]\nname = a\nemail = a@localhost\n[init]\ndefaultBranch = main\n")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, message: str, *options: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", message, *options)
    return git(folder, "rev-parse", "HEAD")


def repository(folder: Path, names: list[str]) -> Path:
    """One with these files of this one, as they are now, committed or not."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "benchmarks" / "README.md").write_text("A file that a sparse checkout has too.\n")
    git(folder, "init", "--quiet")
    git(folder, "config", "uploadpack.allowFilter", "true")  # as servers have it: else a clone gets every file
    commit(folder, "Begin")
    return folder


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return repository(tmp_path / "suite", SOME)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return repository(tmp_path / "suite", [name for name in listed if (ROOT / name).is_file()])


def fork(source: Path, dest: Path, name: str = "bert", proof: bool = False) -> subprocess.CompletedProcess[str]:
    """The tool as its session runs it, in the root of the repository that is forked."""
    command = [sys.executable, "tools/fork.py", name, str(dest), *([] if proof else ["--no-proof"])]
    return subprocess.run(command, cwd=source, check=False, capture_output=True, text=True)


def files(folder: Path) -> dict[str, bytes]:
    """Names and contents, and with each whether it can be run."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(folder).parts)
    return {f"{path.relative_to(folder)} {os.access(path, os.X_OK)}": path.read_bytes() for path in found}


def sparse(source: Path, folder: Path) -> Path:
    """As docs/fork.md says, from a server's address."""
    git(source, "clone", "--quiet", "--filter=blob:none", "--sparse", f"file://{source}", str(folder))
    git(folder, "sparse-checkout", "set", *PARTS)
    return folder


def test_a_fork_has_the_files_of_a_sparse_checkout(whole: Path, tmp_path: Path) -> None:
    (whole / "tools" / "run.sh").touch(mode=0o755)
    head = commit(whole, "Add a file that can be run")
    done = fork(whole, tmp_path / "fork")
    assert done.returncode == 0, done.stderr
    forked = files(tmp_path / "fork")
    origin = forked.pop("ORIGIN False").decode()
    shown = files(sparse(whole, tmp_path / "sparse"))
    assert forked.keys() == shown.keys()
    assert {name for name in forked if forked[name] != shown[name]} <= {n for n in forked if n.endswith(".md False")}
    assert {"noxfile.py False", "benchmarks/README.md False", "tools/run.sh True"} < set(forked)
    assert not [name for name in forked if name.startswith(("benchmarks/resnet50", "docs", "tests", ".ci"))]
    assert f"repository: {whole}\ncommit: {head}\n" in origin
    assert git(tmp_path / "fork", "status", "--porcelain", "--branch") == "## main"
    assert git(tmp_path / "fork", "rev-list", "--all", "--count") == "1"
    assert git(whole, "status", "--porcelain") == ""


def targets(page: Path) -> list[str]:
    """Where the links of a page lead that are no addresses, without headings."""
    found = re.findall(r"\]\(([^)#\s]*)[^)]*\)", page.read_text())
    return [target for target in found if target and ":" not in target]


def test_every_link_of_a_fork_leads_somewhere(whole: Path, tmp_path: Path) -> None:
    note = whole / "benchmarks" / "bert" / "NOTE.md"
    note.write_text("[gone](../resnet50/README.md#run) [kept](README.md#run) [far](https://a.org/x) [here](#y)\r\n")
    commit(whole, "Add a note")
    assert fork(whole, tmp_path / "fork").returncode == 0
    pages = list((tmp_path / "fork").rglob("*.md"))
    dead = [(page.name, target) for page in pages for target in targets(page) if not (page.parent / target).exists()]
    assert dead == []
    kept = (tmp_path / "fork" / note.relative_to(whole)).read_bytes()
    assert kept == b"gone [kept](README.md#run) [far](https://a.org/x) [here](#y)\r\n"
    readme, before = (tmp_path / "fork" / "README.md").read_text(), (whole / "README.md").read_text()
    assert "](docs/" in before
    assert "](docs/" not in readme
    assert "benchmarks/bert/README.md" in targets(tmp_path / "fork" / "README.md") or "](benchmarks/bert" in readme
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", before)
    assert re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", readme) == words, "no word is lost"


def shallow(source: Path, folder: Path) -> Path:
    git(source, "clone", "--quiet", "--depth", "1", f"file://{source}", str(folder))
    return folder


def detached(source: Path, folder: Path) -> Path:
    git(source, "worktree", "add", "--quiet", "--detach", str(folder))
    return folder


@pytest.mark.parametrize("checkout", [sparse, shallow, detached])
def test_a_fork_can_be_made_in_any_checkout(suite: Path, tmp_path: Path, checkout: Callable[..., Path]) -> None:
    commit(suite, "Begin again", "--allow-empty")
    assert fork(suite, tmp_path / "fork").returncode == 0
    done = fork(checkout(suite, tmp_path / "checkout"), tmp_path / "other")
    assert done.returncode == 0, done.stderr
    one, other = files(tmp_path / "fork"), files(tmp_path / "other")
    del one["ORIGIN False"], other["ORIGIN False"]
    assert one == other
    assert git(tmp_path / "other", "fsck") == "", "nothing of it is elsewhere"


def test_a_fork_of_a_fork_says_where_both_are_from(suite: Path, tmp_path: Path) -> None:
    git(suite, "remote", "add", "origin", "https://name:secret@example.org/suite.git")
    assert fork(suite, tmp_path / "one").returncode == 0
    (tmp_path / "one" / "mine.md").write_text("mine\n")
    head = commit(tmp_path / "one", "Mine")
    done = fork(tmp_path / "one", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two" / "mine.md").read_text() == "mine\n"
    first, second = (tmp_path / "two" / "ORIGIN").read_text().split("\n\n", 1)
    assert first.startswith(f"repository: {tmp_path / 'one'}\ncommit: {head}\n")
    assert second == (tmp_path / "one" / "ORIGIN").read_text()
    assert "repository: https://example.org/suite.git\n" in second, "the address without the password"


def change_both(suite: Path, own: Path) -> None:
    """The vendor changes the benchmark's literal, upstream other lines and files of the same folders."""
    benchmark = own / "benchmarks" / "bert" / "bench_bert" / "benchmark.py"
    benchmark.write_text(benchmark.read_text().replace("backends={", 'backends={\n        "own": "x:y",'))
    commit(own, "Add our backend")
    theirs = suite / "benchmarks" / "bert" / "bench_bert" / "benchmark.py"
    theirs.write_text(theirs.read_text().replace("BERT-large question answering", "Changed upstream"))
    (suite / "loadgen" / "new.py").write_text("")
    (suite / "benchmarks" / "resnet50" / "new.py").write_text("")
    (suite / "CONTRIBUTING.md").unlink()
    commit(suite, "Change, add and remove")


def has_both(own: Path) -> bool:
    benchmark = (own / "benchmarks" / "bert" / "bench_bert" / "benchmark.py").read_text()
    merged = '"own": "x:y"' in benchmark and "Changed upstream" in benchmark
    return merged and (own / "loadgen" / "new.py").is_file() and not (own / "CONTRIBUTING.md").exists()


def test_a_fork_takes_later_changes(suite: Path, tmp_path: Path) -> None:
    own = tmp_path / "fork"
    assert fork(suite, own).returncode == 0
    change_both(suite, own)
    before = git(own, "rev-parse", "main")
    done = fork(suite, own)
    assert "git merge upstream" in done.stdout, done.stderr
    assert git(own, "rev-parse", "main") == before
    assert not has_both(own)
    git(own, "merge", "--quiet", "--no-edit", "upstream")
    assert has_both(own)
    assert not (own / "benchmarks" / "resnet50").exists()
    assert f"commit: {git(suite, 'rev-parse', 'HEAD')}" in (own / "ORIGIN").read_text()
    again = git(own, "rev-parse", "upstream")
    assert fork(suite, own).returncode == 0
    assert git(own, "rev-parse", "upstream") == again, "nothing new, no commit"


def test_a_sparse_checkout_takes_later_changes(suite: Path, tmp_path: Path) -> None:
    own = sparse(suite, tmp_path / "sparse")
    change_both(suite, own)
    git(own, "pull", "--quiet", "--no-rebase", "--no-edit")
    assert has_both(own)
    assert not (own / "benchmarks" / "resnet50").exists()


@pytest.mark.parametrize(
    ("dest", "name", "message"),
    [
        ("full", "bert", "full exists already and is not a fork: choose another folder"),
        ("file", "bert", "file exists already and is not a fork: choose another folder"),
        ("repository", "bert", "has no branch upstream"),
        ("suite/below", "bert", "below is inside"),
        ("fork", "resnet50", "is a fork of another benchmark"),
        ("new", "alexnet", "has no benchmarks/alexnet: choose bert, resnet50"),
    ],
)
def test_a_place_or_name_that_cannot_be(suite: Path, tmp_path: Path, dest: str, name: str, message: str) -> None:
    (tmp_path / "full").mkdir()
    for file in (tmp_path / "file", tmp_path / "full" / "mine"):
        file.write_text("mine\n")
    git(tmp_path, "init", "--quiet", "repository")
    assert fork(suite, tmp_path / "fork").returncode == 0
    before = files(tmp_path)
    done = fork(suite, tmp_path / dest, name=name)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path) == before


@pytest.mark.parametrize("file", ["noxfile.py", "benchmarks/bert/user.conf", "benchmarks/bert/bench_bert/backend_x.py"])
def test_changes_without_a_commit_are_refused(suite: Path, tmp_path: Path, file: str) -> None:
    (suite / "docs" / "notes.md").write_text("no part of a fork\n")
    with (suite / file).open("a") as changed:
        changed.write("\n")
    done = fork(suite, tmp_path / "fork")
    assert (done.returncode, (tmp_path / "fork").exists()) == (1, False)
    assert "commit these changes first" in done.stderr
    assert file in done.stderr
    assert "notes.md" not in done.stderr
    commit(suite, "Change")
    assert fork(suite, tmp_path / "fork").returncode == 0


def test_files_without_git_are_refused(suite: Path, tmp_path: Path) -> None:
    shutil.rmtree(suite / ".git")
    assert "is not a git repository: clone it" in fork(suite, tmp_path / "fork").stderr


NOX = """#!/bin/sh
echo "nox $2 in $PWD, home: $(ls -A "$HOME"), ours: $VIRTUAL_ENV$UV_CACHE_DIR$XDG_CACHE_HOME."
touch "$HOME/used"
test -f noxfile.py && ! test -e docs && test "$2" != "$BROKEN"
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a proof runs, with stand-ins for nox and docker first on the path."""
    for folder in ("programs", "temporary"):
        (tmp_path / folder).mkdir()
    for name, text in (("nox", NOX), ("docker", '#!/bin/sh\ntest "$ENGINE"\n')):
        (tmp_path / "programs" / name).write_text(text)
        (tmp_path / "programs" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    for name in ("VIRTUAL_ENV", "UV_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "ours")
    return tmp_path / "temporary"


@pytest.mark.parametrize("engine", ["", "yes"])
def test_the_proof_is_of_a_fresh_clone_with_an_empty_home(
    suite: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv("ENGINE", engine)
    done = fork(suite, tmp_path / "fork", proof=True)
    assert done.returncode == 0, done.stderr
    ran = re.findall(r"^nox (.*) in (.*)/fork-bert-\w+/bert, home: (.*), ours: \.$", done.stdout, re.M)
    image = [("image-bert", str(temporary), "used")] if engine else []
    assert ran == [("bert", str(temporary), ""), ("tests", str(temporary), "used"), *image]
    timed = re.findall(r"^ +\d+\.\d s  (.*)$", done.stdout, re.M)
    assert timed[1:] == [f"nox -s {session}" for session, _, _ in ran]
    assert ("NOT BUILT: the image" in done.stdout) == (not engine)
    assert not any(temporary.iterdir()), "nothing is left"


@pytest.mark.parametrize("broken", ["bert", "tests", "image-bert"])
def test_a_fork_that_fails_is_not_proved(
    suite: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setenv("ENGINE", "yes")
    monkeypatch.setenv("BROKEN", broken)
    done = fork(suite, tmp_path / "fork", proof=True)
    assert done.returncode == 1
    assert f"does not stand alone: `nox -s {broken}` in a fresh clone ended with exit code 1" in done.stderr
    assert done.stdout.count("$ nox") == ["bert", "tests", "image-bert"].index(broken) + 1
    assert not any(temporary.iterdir()), "nothing is left"


def test_a_proof_without_room_does_not_begin(suite: Path, tmp_path: Path, temporary: Path) -> None:
    tool = suite / "tools" / "fork.py"
    tool.write_text(re.sub(r"(?m)^NEEDS_GB = \d+", "NEEDS_GB = 10**9", tool.read_text()))
    commit(suite, "Need more")
    done = fork(suite, tmp_path / "fork", proof=True)
    assert "GB free, a proof needs 1000000000" in done.stderr
    assert "nox -s" not in done.stdout


def test_the_page_has_the_commands_that_are_tested() -> None:
    text = PAGE.read_text()
    for command in (f"git sparse-checkout set {' '.join(PARTS)}", "--filter=blob:none --sparse", "git merge upstream"):
        assert command in text
