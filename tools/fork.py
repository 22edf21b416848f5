"""Write one benchmark and what it needs as a repository of its own, and prove that it stands alone.

The fork's branch `upstream` holds what this repository has at a commit, and its `main` starts there. Run again for
the same folder, this adds a commit to `upstream` alone, to be merged: see docs/fork.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("loadgen", "tools", "benchmarks/{}")  # of a sparse checkout, which has the files at the root besides
ELSEWHERE = "docs/ and the other benchmarks are in that repository. Links to them are plain words here."
LINK = re.compile(r"\[([^]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
"""Of Markdown: words, file or address, heading."""
NEEDS_GB = 8  # free: packages and their cache are 3 GB with PyTorch's CPU build, and PyPI's has 5 of CUDA
HELP = re.compile(r"CACHE|^(XDG_|HF_|TORCH_|NOX|VIRTUAL_ENV$|PYTHONPATH$|PYTHONHOME$)")
"""Variables by which files and settings outside a fork could help it."""


class ForkError(Exception):
    """A fork cannot be made, or does not stand alone. The message says why, and what to do."""


def git(folder: Path, *words: str, **variables: str) -> str:
    """What git prints, run in the folder. Raises ForkError with what it says."""
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set where git itself started us
    kept = {name: value for name, value in os.environ.items() if name not in elsewhere}
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, env=kept | variables, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ForkError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def check_source(parts: list[str]) -> None:
    """Raises ForkError if there is no commit to fork, or if it is not what the folders hold."""
    if not (ROOT / ".git").exists():
        raise ForkError(f"{ROOT} is not a git repository: clone it, because a fork is made from a commit")
    missing = [part for part in parts if not git(ROOT, "ls-tree", "HEAD", part)]
    if missing:
        folders = git(ROOT, "ls-tree", "-d", "--name-only", "HEAD", "benchmarks/").split()
        raise ForkError(f"the last commit has no {missing[0]}: choose {', '.join(Path(one).name for one in folders)}")
    changed = git(ROOT, "status", "--porcelain", "--", *parts, ":(glob)*")
    if changed:
        raise ForkError(f"commit these changes first, as a fork is made from a commit:\n{changed}")


def check_place(dest: Path, name: str) -> bool:
    """Is this a new fork's folder? False: a fork of this benchmark is there. Raises ForkError for any other."""
    if dest.is_relative_to(ROOT):
        raise ForkError(f"{dest} is inside {ROOT}: choose a folder outside")
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return True
    if not (dest / ".git").exists():
        raise ForkError(f"{dest} exists already and is not a fork: choose another folder")
    if not git(dest, "branch", "--list", "upstream"):
        raise ForkError(
            f"{dest} has no branch upstream: choose another folder, or `git branch upstream origin/upstream`"
        )
    if f"benchmark: {name}\n" not in git(dest, "show", "upstream:ORIGIN"):
        raise ForkError(f"{dest} is a fork of another benchmark: choose another folder")
    return False


def origin(name: str) -> str:
    """The text of ORIGIN: where the fork is from; if that is a fork too, then where that is from."""
    remotes = git(ROOT, "remote").split()
    address = git(ROOT, "remote", "get-url", "origin") if "origin" in remotes else str(ROOT)
    public = re.sub(r"^(https?://)[^/@]*@", r"\1", address)  # without a password
    commit, date = git(ROOT, "log", "-1", "--format=%H %cI").split()
    earlier = ROOT / "ORIGIN"
    more = earlier.read_text() if earlier.is_file() else f"{ELSEWHERE}\n"
    return f"repository: {public}\ncommit: {commit}\ndate: {date}\nbenchmark: {name}\n\n{more}"


def write(name: str, parts: list[str], dest: Path, is_new: bool) -> None:
    """Commit a sparse checkout of the benchmark, and ORIGIN, to the fork's `upstream`, unless it is there."""
    text = origin(name)
    if not is_new and git(dest, "show", "upstream:ORIGIN") == text.strip():
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git(ROOT, "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(tree))
        git(tree, "sparse-checkout", "init", "--cone")
        git(tree, "sparse-checkout", "set", *parts)
        git(tree, "checkout", "--quiet", git(ROOT, "rev-parse", "HEAD"))
        (tree / "ORIGIN").write_text(text)
        unlink(tree)
        if is_new:
            git(ROOT, "init", "--quiet", "--initial-branch", "main", str(dest))
        commit = snapshot(name, tree, dest, [] if is_new else ["-p", "upstream"])
    git(dest, "branch", "--force", "upstream", commit)
    if is_new:
        git(dest, "reset", "--quiet", "--hard", commit)


def unlink(tree: Path) -> None:
    """Leave the words alone of each link in a page that leads to a file which a fork does not have."""
    for page in tree.rglob("*.md"):
        with page.open(encoding="utf-8", newline="") as opened:
            text = opened.read()

        def kept(link: re.Match[str], folder: Path = page.parent) -> str:
            return link[0] if ":" in link[2] or (folder / link[2]).exists() else link[1]

        if (changed := LINK.sub(kept, text)) != text:
            with page.open("w", encoding="utf-8", newline="") as opened:
                opened.write(changed)


def snapshot(name: str, tree: Path, dest: Path, parents: list[str]) -> str:
    """A commit in the repository `dest` of all that the folder `tree` holds, dated as the commit that it is from."""
    place = {"GIT_DIR": str(dest / ".git"), "GIT_WORK_TREE": str(tree), "GIT_INDEX_FILE": str(tree.parent / "index")}
    git(tree, "add", "--all", "--force", ".", **place)
    commit, date = git(ROOT, "log", "-1", "--format=%H %cI").split()
    dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    author = ("-c", "user.name=fork", "-c", "user.email=fork@localhost")  # a machine may have none
    what = (git(tree, "write-tree", **place), *parents, "-m", f"Take {name} from commit {commit}")
    return git(tree, *author, "commit-tree", *what, **place, **dates)


def alone(home: Path) -> dict[str, str]:
    """This environment with an empty home, and without what could help a fork."""
    return {name: value for name, value in os.environ.items() if not HELP.search(name)} | {"HOME": str(home)}


def has_engine(environment: dict[str, str]) -> bool:
    docker = shutil.which("docker")
    return bool(docker and not subprocess.run([docker, "version"], env=environment, capture_output=True).returncode)


def prove(name: str, dest: Path) -> None:
    """Run a fresh clone's commands with an empty home. Raises ForkError at the first that fails."""
    with tempfile.TemporaryDirectory(prefix=f"fork-{name}-") as temporary:
        folder, clone, home = Path(temporary), Path(temporary, name), Path(temporary, "home")
        free_gb = shutil.disk_usage(folder).free / 1e9
        if free_gb < NEEDS_GB:
            raise ForkError(f"{folder} has {free_gb:.1f} GB free, a proof needs {NEEDS_GB}: set TMPDIR to another")
        home.mkdir()
        engine = has_engine(alone(home))
        sessions = (name, "tests", *([f"image-{name}"] if engine else []))
        lines = [timed(["git", "clone", "--quiet", str(dest), str(clone)], folder, home)]
        lines += [timed(["nox", "-s", session], clone, home) for session in sessions]
        sizes = {status.st_ino: status.st_blocks * 512 for status in (file.lstat() for file in folder.rglob("*"))}
    print(f"\nproved in a fresh clone with an empty home, {sum(sizes.values()) / 1e9:.1f} GB:", *lines, sep="\n")
    if not engine:
        print("NOT BUILT: the image, as no Docker engine answers `docker version` here.")
        print(f"Where one does: nox -s image-{name}")


def timed(command: list[str], folder: Path, home: Path) -> str:
    """Run and say how long it took. Raises ForkError if it fails."""
    words = " ".join(command)
    print(f"\n$ {words}", flush=True)
    began = time.monotonic()
    code = subprocess.run(command, cwd=folder, env=alone(home), check=False).returncode
    if code:
        raise ForkError(f"the fork does not stand alone: `{words}` in a fresh clone ended with exit code {code}")
    return f"{time.monotonic() - began:6.1f} s  {words}"


def main(arguments: list[str]) -> None:
    """Raises ForkError; before anything is written for all that can be known before."""
    parser = argparse.ArgumentParser(prog=f"nox -s fork-{arguments[0]} --", description=__doc__)
    parser.add_argument("dest", type=Path, metavar="DEST", help="a new folder, or a fork to update")
    parser.add_argument("--no-proof", action="store_true", help="only write: the proof takes minutes and gigabytes")
    name, asked = arguments[0], parser.parse_args(arguments[1:])
    dest, parts = asked.dest.resolve(), [part.format(name) for part in PARTS]
    check_source(parts)
    is_new = check_place(dest, name)
    write(name, parts, dest, is_new)
    if not is_new:
        print(f"{dest}: its branch upstream is at this repository's last commit. Next, there: git merge upstream")
        return
    print(f"{dest}: {len(git(dest, 'ls-files').splitlines())} files", flush=True)
    if not asked.no_proof:
        prove(name, dest)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ForkError as error:
        sys.exit(f"error: {error}")
