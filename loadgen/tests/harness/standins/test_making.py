"""Files made in the place of official ones: once, whole, by one worker."""

from __future__ import annotations

import errno
import shutil
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.standins.making import (
    STAMP,
    Writer,
    check_space,
    find_writer,
    made_once,
    provide,
    version_of,
    write_with,
    writing,
)


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that `a_maker:weights` has made."""
    made: list[str] = []

    def weights(path: Path) -> None:
        made.append(path.name)
        time.sleep(0.05)
        path.write_text("made")

    module = ModuleType("a_maker")
    module.weights = weights  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_maker", module)
    return made


def options(folder: Path, **extra: str) -> BackendOptions:
    return BackendOptions(folder, extra=extra)


def test_a_missing_file_is_made_by_the_profiles_maker(tmp_path: Path, maker: list[str]) -> None:
    asked = options(tmp_path, weights="a_maker:weights")
    assert provide(tmp_path / "a", asked).read_text() == "made"
    (tmp_path / "b").write_text("mine")
    assert provide(tmp_path / "b", asked).read_text() == "mine"
    assert not provide(tmp_path / "c", options(tmp_path)).exists()
    assert not provide(tmp_path / "none" / "d", asked).exists(), "the reader says that it is missing"
    assert maker == ["a"]


def test_of_several_workers_one_makes_it(tmp_path: Path, maker: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    asked = options(tmp_path, weights="a_maker:weights")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: provide(tmp_path / "a", asked).read_text(), range(3)))
    assert found == ["made"] * 3
    assert maker == ["a"]
    assert "which another worker or run makes" in capfd.readouterr().err


def test_files_that_somebody_else_put_there_are_kept(tmp_path: Path) -> None:
    official = tmp_path / "model" / "model.onnx"
    official.parent.mkdir()
    official.write_bytes(b"official")
    with pytest.raises(InputError, match=r"model\.onnx was not made by this profile, which would replace it"):
        made_once(tmp_path, "1", lambda folder: official.unlink())
    assert official.read_bytes() == b"official"


def test_a_folder_is_made_once_a_version(tmp_path: Path) -> None:
    made: list[Path] = []
    for version in ("1", "1", "2", "2"):
        made_once(tmp_path / "new" / "er", version, made.append)
    assert made == [tmp_path / "new" / "er"] * 2


def test_what_stops_the_making_leaves_no_stamp(tmp_path: Path) -> None:
    def stopped(folder: Path) -> None:
        raise KeyboardInterrupt

    made_once(tmp_path, "1", lambda folder: None)
    with pytest.raises(KeyboardInterrupt):
        made_once(tmp_path, "2", stopped)
    assert (tmp_path / STAMP).read_text() == "unfinished"


def test_a_version_follows_from_what_the_files_hold(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text(file.name)
    before = version_of(*files)
    assert version_of(*files) == before
    files[1].write_text("c")
    assert version_of(*files) != before


def _write(path: Path, text: str, times: int = 1) -> None:
    path.write_text(text * times)


def _stopped(path: Path, text: str, times: int = 1) -> None:
    path.write_text("half")
    raise KeyboardInterrupt


WRITERS = {"a": Writer("numpy", _write), "b": Writer("no_such_package", _write), "c": Writer("numpy", _stopped)}


def test_a_file_is_written_by_the_writer_of_its_name(tmp_path: Path) -> None:
    write_with(WRITERS, tmp_path / "a", "x", times=2)
    assert (tmp_path / "a").read_text() == "xx"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("z", "z is not a weights file of this benchmark: choose a, b, c"),
        ("b", "b is made with the package no_such_package, which is not installed"),
    ],
)
def test_a_file_that_cannot_be_made_is_explained(name: str, message: str, tmp_path: Path) -> None:
    for ask in (find_writer, lambda writers, path: write_with(writers, path, "x")):
        with pytest.raises(InputError, match=message):
            ask(WRITERS, tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_a_stopped_write_leaves_no_half_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_with(WRITERS, tmp_path / "c", "x")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_explained(code: int, tmp_path: Path) -> None:
    def refused(folder: Path) -> None:
        raise OSError(code, "refused")

    with pytest.raises(InputError, match=r"cannot be written \(refused\): .* by --data"):
        made_once(tmp_path, "1", refused)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/below cannot be written"), writing(tmp_path / "file" / "below"):
        pass
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        (tmp_path / "none").read_text()  # a bug stays one


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 10**9))
    check_space(tmp_path / "a", 900_000_000)
    with pytest.raises(InputError, match=r"a: needs 1.3 GB, 1.0 GB are free: make room, or name .* by --data"):
        check_space(tmp_path / "a", 1_300_000_000)
