"""Builds the image of one benchmark through the Docker SDK and proves it by running it: `nox -s image-bert`.

`docker build -f benchmarks/bert/Dockerfile .` makes the same image. This one also carries its commit, only one
benchmark is sent to the engine, and what docs/images.md promises is tried.
"""

from __future__ import annotations

import argparse
import codecs
import io
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException
from docker.utils.build import tar

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 3600  # without a word from the engine: a step may install gigabytes
ANYONE = 12345  # a user whom the image does not know
MEMORY = "2g"
RESULTS = "/results"
REFUSED = 2  # the harness's exit code of what it cannot use: nothing is written then


class ImageError(Exception):
    """The image is not built, or not as promised. The message says why, and what to do."""


class NoEngineError(ImageError):
    """No container engine answers to this user."""


def connect() -> Any:
    """A client of the engine that DOCKER_HOST names, else of Docker's own socket."""
    try:
        return docker.from_env(timeout=TIMEOUT_S)
    except (DockerException, OSError) as error:
        raise NoEngineError(_without_engine(str(error))) from error


def _without_engine(error: str) -> str:
    if "Permission denied" in error:
        return (
            f"this user may not use the engine's socket ({error}): join its group (`sudo usermod -aG docker $USER`, "
            "then log in again), or set DOCKER_HOST to the socket of an engine of your own"
        )
    return (
        f"no container engine answers ({error}): start Docker (`sudo systemctl start docker`, or Docker Desktop), or "
        "set DOCKER_HOST to the address that `docker context inspect` shows; for Podman `systemctl --user start "
        "podman.socket` and DOCKER_HOST=unix://$XDG_RUNTIME_DIR/podman/podman.sock"
    )


def context(name: str) -> Any:
    """What the engine gets, as a tar file: what .dockerignore allows, of this benchmark only."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    others = [f"benchmarks/{folder.name}" for folder in ROOT.glob("benchmarks/*") if folder.name != name]
    return tar(str(ROOT), exclude=patterns + others, dockerfile=(f"benchmarks/{name}/Dockerfile", None))


def origin() -> dict[str, str]:
    """The build arguments that say where the code is from, as git knows it."""
    revision = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    address = re.sub(r"//[^/@]*@", "//", _git("config", "--get", "remote.origin.url"))  # without a password
    public = re.match(r"(https?|ssh|git)://|[\w.-]+@", address)  # a path says nothing on another machine
    return {"REVISION": revision or "unknown", "SOURCE": address if public else "unknown"}


def _git(*words: str) -> str:
    """What git prints; nothing where there is no git, or no repository."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return ""
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()


def build(client: Any, name: str, tag: str, arguments: Mapping[str, str]) -> None:
    """Build and print all that the engine says. Raises ImageError with the step that failed."""
    dockerfile, step, said = f"benchmarks/{name}/Dockerfile", "sending the files", ""
    base = arguments.get("BASE") or (ROOT / dockerfile).read_text().partition("ARG BASE=")[2].splitlines()[0]
    try:
        with context(name) as sent:
            events = client.api.build(
                fileobj=sent,
                custom_context=True,
                dockerfile=dockerfile,
                tag=tag,
                buildargs={**origin(), **arguments},
                rm=True,
                forcerm=True,
                decode=True,
            )
            for event in events:
                text = event.get("stream") or _pulled(event)
                print(text, end="", flush=True)
                started = re.match(r"step \d+/\d+ ?: ?(.*)", text, re.IGNORECASE)  # Podman writes STEP
                step, said = (started[1].replace("${BASE}", base), "") if started else (step, said + text)
                if "error" in event:
                    raise ImageError(_why_not_built(step, said, event["error"]))
    except (DockerException, OSError) as error:
        raise ImageError(_why_not_built(step, said, str(error))) from error


def _pulled(event: Mapping[str, Any]) -> str:
    """A line about a layer of the base, without its hundred progress bars."""
    return f"{event.get('id', '')} {event['status']}\n" if "status" in event and not event.get("progress") else ""


def _why_not_built(step: str, said: str, error: str) -> str:
    """said: the step's output, which may know more than the engine does."""
    if "no space left on device" in (said + error).lower():
        return (
            f"the engine's disk is full, at: {step} ({error}). `docker system df` shows what takes it, "
            "`docker system prune` removes what nothing uses"
        )
    if step.startswith("FROM"):
        return (
            f"the base image cannot be downloaded, at: {step} ({error}). Try `docker pull` for the network, or name "
            "another Python 3.11 on Debian 12 by --build-arg BASE=IMAGE"
        )
    result = re.sub(r"The command '.*' returned", "it returned", error, flags=re.DOTALL)  # the step once more
    return f"this step failed, its output is above: {step} ({result})"


@dataclass(frozen=True)
class Trial:
    """A promise of docs/images.md, and a run that keeps it: read-only, no network, little memory, any user."""

    promise: str
    command: tuple[str, ...] = ()
    exit_code: int = 0
    says: str = ""
    stop_at: str = ""
    """Stop the container, as `docker stop` does, when this is printed."""
    tmpfs: Mapping[str, str] = field(default_factory=dict)


def trials(backends: str) -> list[Trial]:
    """backends: those that the image was asked to have, with commas between; empty: its own."""
    first, *others = backends.split(",")
    miniature = ("run", "--backend", first) if first else ()
    quick = ("--scenario", "Offline", "--mode", "accuracy")
    return [
        Trial("the miniature ends VALID", miniature, says="VALID"),
        *(Trial(f"{name} meets its target", ("run", "--backend", name, *quick), says=": met") for name in others),
        Trial("results that cannot be written are an error", (), REFUSED, "cannot be written", tmpfs={RESULTS: "ro"}),
        Trial("official files are looked for in /data", ("run", "--profile", "full"), REFUSED, "/data/"),
        Trial("a stopped run keeps what it measured", miniature, 130, "INVALID", stop_at=" performance: "),
    ]


def prove(client: Any, tag: str, trial: Trial) -> None:
    """Run it and print what it prints. Raises ImageError if it is not as promised."""
    print(f"\n{tag}: {trial.promise}", flush=True)
    container = client.containers.run(
        tag,
        list(trial.command) or None,
        detach=True,
        read_only=True,
        network_mode="none",
        mem_limit=MEMORY,
        user=f"{ANYONE}:{ANYONE}",
        tmpfs={"/tmp": "", **trial.tmpfs},
    )
    try:
        printed = _follow(container, trial.stop_at)
        fault = _fault(trial, container.wait()["StatusCode"], printed)
        if not fault and trial.exit_code != REFUSED:
            fault = _results_fault(b"".join(container.get_archive(RESULTS)[0]))
    finally:
        container.remove(v=True, force=True)
    if fault:
        raise ImageError(f"{tag} is built, but not as promised ({trial.promise}): {fault}")


def _follow(container: Any, stop_at: str) -> str:
    """Print what the container prints, until it ends."""
    printed = ""
    stopped = False
    for text in codecs.iterdecode(container.logs(stream=True, follow=True), "utf-8", "replace"):
        print(text, end="", flush=True)
        printed += text
        if stop_at and stop_at in printed and not stopped:
            container.stop(timeout=60)
            stopped = True
    return printed


def _fault(trial: Trial, code: int, printed: str) -> str:
    killed = f": it was killed, perhaps because {MEMORY} of memory are not enough" if code == 137 else ""
    if code != trial.exit_code:
        return f"its exit code is {code}, not {trial.exit_code}{killed}"
    if trial.says not in printed:
        return f"it does not say {trial.says!r}"
    return "it ends in a traceback" if "Traceback" in printed else ""


def _results_fault(archive: bytes) -> str:
    """Is there a report, and does all of it belong to the user who ran?"""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        owners = {member.name: member.uid for member in files if "/" in member.name}
    if not any(name.endswith("/results.json") for name in owners):
        return f"there is no results.json in {RESULTS}"
    foreign = [name for name, owner in owners.items() if owner != ANYONE]
    return f"{foreign[0]} does not belong to the user who ran" if foreign else ""


def make(name: str, tag: str, arguments: Mapping[str, str]) -> None:
    """Build, say size and time, prove."""
    client = connect()
    began = time.monotonic()
    build(client, name, tag, arguments)
    size = client.images.get(tag).attrs["Size"]
    print(f"\n{tag}: {size / 1e6:,.0f} MB with its base, built in {time.monotonic() - began:.0f} s", flush=True)
    for trial in trials(arguments.get("BACKENDS", "")):
        try:
            prove(client, tag, trial)
        except (DockerException, OSError) as error:
            raise ImageError(f"{tag} is built, but the engine does not run it ({trial.promise}): {error}") from error
    print(f"\n{tag}: built and proved in {time.monotonic() - began:.0f} s", flush=True)


def pair(text: str) -> tuple[str, str]:
    """NAME=VALUE of --build-arg."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} has no value: write {text}=VALUE")
    return name, value


def main(words: Iterable[str]) -> int:
    """The exit code: 0 built and proved, or skipped where that was asked for; 2 not."""
    parser = argparse.ArgumentParser(prog="image", description="Build the image of a benchmark and prove it.")
    names = sorted(folder.parent.name for folder in ROOT.glob("benchmarks/*/Dockerfile"))
    parser.add_argument("name", choices=names, help="the benchmark")
    parser.add_argument("--tag", help="the image's name; the benchmark's by default")
    parser.add_argument(
        "--build-arg", action="append", default=[], type=pair, metavar="NAME=VALUE", help="see docs/images.md"
    )
    parser.add_argument("--skip-without-engine", action="store_true", help="instead of an error")
    options = parser.parse_args([*words])
    try:
        make(options.name, options.tag or options.name, dict(options.build_arg))
    except ImageError as error:
        skipped = isinstance(error, NoEngineError) and options.skip_without_engine
        print(f"SKIPPED, no image of {options.name}: {error}" if skipped else f"error: {error}", file=sys.stderr)
        return 0 if skipped else 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
