"""What `nox -s image-bert` sends, and says when something is wrong: with a fake engine, as any machine can.

The image itself is built and run by `nox -s image-bert`, in `.ci/run` too.
"""

from __future__ import annotations

import importlib.util
import io
import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
from docker.errors import APIError, DockerException

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(project.parent.name for project in ROOT.glob("benchmarks/*/pyproject.toml"))
NAME = BENCHMARKS[0]
STEP = "RUN pip install torch"
BEGUN = {"stream": f"Step 9/25 : {STEP}\n"}


@pytest.fixture(scope="module")
def image() -> Iterator[Any]:
    """tools/image.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("image", ROOT / "tools" / "image.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["image"] = module  # where its dataclasses look for their names
    spec.loader.exec_module(module)
    yield module
    del sys.modules["image"]


class Engine:
    """Answers a build with these events, and a run with this output, exit code and tar of results."""

    def __init__(self, events: list[Any], output: bytes = b"VALID\n", code: int = 0, results: bytes = b"") -> None:
        self.events, self.output, self.code, self.results = events, output, code, results
        self.asked: dict[str, Any] = {}
        self.stops = 0
        self.removed = False
        self.api = SimpleNamespace(build=self.build)
        self.images = SimpleNamespace(get=lambda tag: SimpleNamespace(attrs={"Size": 345_600_000}))
        self.containers = SimpleNamespace(run=self.run)

    def build(self, **options: Any) -> Iterator[Any]:
        with tarfile.open(fileobj=options["fileobj"]) as sent:
            self.asked = options | {"files": set(sent.getnames())}
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event

    def run(self, tag: str, command: Any, **options: Any) -> Any:
        self.asked = options | {"command": command}
        return self

    def logs(self, **_: Any) -> Iterator[bytes]:
        yield from (self.output[:1], self.output[1:])

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self.code}

    def stop(self, timeout: int) -> None:
        self.stops += 1

    def get_archive(self, path: str) -> tuple[list[bytes], dict[str, Any]]:
        return [self.results], {}

    def remove(self, **_: Any) -> None:
        self.removed = True


def results(owner: int = 12345, name: str = "results/bert/now/results.json") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path, uid in (("results", 0), (name, owner)):
            member = tarfile.TarInfo(path)
            member.uid = uid
            archive.addfile(member)
    return file.getvalue()


@pytest.fixture
def run(image: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command with this engine, or one that does not answer."""

    def command(engine: Engine | Exception, *words: str) -> int:
        def from_env(**_: Any) -> Any:
            if isinstance(engine, Exception):
                raise engine
            return engine

        monkeypatch.setattr(docker, "from_env", from_env)
        return int(image.main([NAME, *words]))

    return command


# What the SDK says; the first is not made by connecting, because a test may run as root, whom nothing is denied.
DENIED = "Error while fetching server API version: ('Connection aborted.', PermissionError(13, 'Permission denied'))"
ABSENT = "Error while fetching server API version: ('Connection aborted.', FileNotFoundError(2, 'No such file'))"


@pytest.mark.parametrize(("error", "advice"), [(DENIED, "usermod -aG docker"), (ABSENT, "systemctl start docker")])
def test_without_an_engine_it_says_how_to_get_one(
    error: str, advice: str, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(DockerException(error)) == 2
    assert advice in (message := capsys.readouterr().err)
    assert message.startswith("error: ")
    assert run(DockerException(error), "--skip-without-engine") == 0
    assert capsys.readouterr().err.startswith(f"SKIPPED, no image of {NAME}: ")


def test_the_sdk_finds_no_engine_where_none_is(
    image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert image.main([NAME]) == 2
    assert "no container engine answers" in capsys.readouterr().err


FULL = "write /usr/lib/x.so: no space left on device"
NO_HOST = "Get https://registry.invalid/v2/: dial tcp: lookup registry.invalid: no such host"
FAILED = f"The command '/bin/sh -c {STEP[4:]}' returned a non-zero code: 1"


@pytest.mark.parametrize(
    ("events", "messages"),
    [
        ([BEGUN, {"error": FULL}], ["disk is full", "docker system prune"]),
        ([BEGUN, {"stream": "OSError: No space left on device\n"}, {"error": FAILED}], ["disk is full"]),
        ([APIError(f"500 Server Error: {FULL}")], ["disk is full, at: sending the files"]),
        ([{"stream": "Step 2/25 : FROM ${BASE}\n"}, {"error": NO_HOST}], ["FROM python:3.11-slim-", "BASE=IMAGE"]),
        (
            [{"stream": "STEP 2/25: FROM ${BASE}\n"}, APIError(NO_HOST)],
            ["base image cannot be downloaded", "no such host"],
        ),
        ([BEGUN, {"error": FAILED}], [f"is above: {STEP} (it returned a non-zero"]),
        ([BEGUN, ConnectionError("gone")], [f"is above: {STEP} (gone)"]),
    ],
)
def test_a_failed_build_says_where_and_what_to_do(
    events: list[Any], messages: list[str], run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Engine(events)) == 2
    printed = capsys.readouterr().err
    assert [message for message in messages if message not in printed] == []


def test_a_step_that_fails_shows_all_its_output(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"line {number}\n" for number in range(2000)]
    events = [BEGUN, *({"stream": line} for line in lines), {"error": FAILED}]
    assert run(Engine(events)) == 2
    assert "".join(lines) in capsys.readouterr().out


def test_pulling_a_base_is_shown_without_bars(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    layer = {"id": "b1", "status": "Downloading"}
    run(Engine([layer | {"progress": "[==>  ]"}, {"id": "b1", "status": "Pull complete"}], results=results()))
    printed = capsys.readouterr().out
    assert "b1 Pull complete\n" in printed
    assert "Downloading" not in printed


@pytest.mark.parametrize("name", BENCHMARKS)
def test_only_what_the_image_needs_is_sent(name: str, image: Any) -> None:
    engine = Engine([])
    image.build(engine, name, name, {})
    allowed = (rf"benchmarks(/{name}(/bench_{name}(/.*)?|/[\w.]+)?)?", r"loadgen/(src(/.*)?|pyproject\.toml)")
    pattern = "|".join([*allowed, r"LICENSE|\.dockerignore"])
    assert [file for file in engine.asked["files"] if not re.fullmatch(pattern, file) or "__pycache__" in file] == []
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / f"benchmarks/{name}/Dockerfile").read_text(), re.MULTILINE)
    sources = {source for sources in copied for source in sources.split()}
    assert {source for source in sources if not any(file.startswith(source) for file in engine.asked["files"])} == set()


def test_a_build_argument_is_passed_on(run: Callable[..., int], image: Any, capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine([])
    image.build(engine, NAME, "tagged", {"BACKENDS": "pytorch"})
    assert engine.asked["tag"] == "tagged"
    assert engine.asked["buildargs"] == image.origin() | {"BACKENDS": "pytorch"}
    assert [trial.command[:3] for trial in image.trials("pytorch,tvm")[:2]] == [
        ("run", "--backend", "pytorch"),
        ("run", "--backend", "tvm"),
    ]
    with pytest.raises(SystemExit):
        run(engine, "--build-arg", "BACKENDS")
    assert "write BACKENDS=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "label"),
    [
        ("https://me:secret@example.org/a/b.git", "https://example.org/a/b.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("/srv/clones/b", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_label_is_the_address_that_others_can_use(
    address: str, label: str, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "_git", lambda *words: address if words[0] == "config" else "")
    assert image.origin() == {"REVISION": "unknown", "SOURCE": label}


@pytest.mark.parametrize(
    ("engine", "fault"),
    [
        (Engine([], results=results()), ""),
        (Engine([], code=1, results=results()), "exit code is 1, not 0"),
        (Engine([], code=137), "it was killed, perhaps because 2g of memory are not enough"),
        (Engine([], output=b"done\n", results=results()), "does not say 'VALID'"),
        (Engine([], output=b"VALID\nTraceback (most\n", results=results()), "ends in a traceback"),
        (Engine([], results=results(owner=0)), "results/bert/now/results.json does not belong"),
        (Engine([], results=results(name="results/bert/x")), "no results.json"),
    ],
)
def test_an_image_is_proved_by_what_its_run_leaves(engine: Engine, fault: str, image: Any) -> None:
    trial = image.trials("")[0]
    if fault:
        with pytest.raises(image.ImageError, match=re.escape(fault)):
            image.prove(engine, NAME, trial)
    else:
        image.prove(engine, NAME, trial)
    confined = {"read_only": True, "network_mode": "none", "mem_limit": "2g", "user": "12345:12345", "command": None}
    assert confined.items() <= engine.asked.items()
    assert engine.removed


def test_an_engine_that_does_not_run_it_is_an_error(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Engine([])
    engine.containers.run = lambda *_, **__: (_ for _ in ()).throw(APIError("500: no such runtime"))
    assert run(engine) == 2
    assert "the engine does not run it (the miniature ends VALID): 500: no such runtime" in capsys.readouterr().err


def test_a_container_is_stopped_once(image: Any) -> None:
    engine = Engine([], output=b"it runs\nit ends\n", code=130, results=results())
    image.prove(engine, NAME, image.Trial("stopped", exit_code=130, stop_at="it runs"))
    assert engine.stops == 1
    engine.results = results(name="results/none")
    with pytest.raises(image.ImageError, match=r"no results\.json"):
        image.prove(engine, NAME, image.Trial("stopped", exit_code=130))
