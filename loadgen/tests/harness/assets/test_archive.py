"""Unpacking: ordinary archives of each kind, damaged ones, and those that want to write elsewhere."""

from __future__ import annotations

import io
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadgen.contracts import InputError
from loadgen.harness.assets.archive import extract, read

FILES = {"a.txt": b"A", "deep/er/b.bin": os.urandom(3000), "empty": b"", "..names/...txt": b"dots are no way out"}
Entry = tuple[str, dict[str, Any], bytes]


def tar(path: Path, *entries: Entry, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, fields, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            file.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, *entries: Entry) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, fields, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = fields.get("mode", 0) << 16
            file.writestr(info, content)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


PLAIN = [(name, {}, content) for name, content in FILES.items()]
MAKERS: dict[str, Callable[..., Path]] = {
    "x.tar": tar,
    "x.tar.gz": lambda path, *entries: tar(path, *entries, mode="w:gz"),
    "x.tar.xz": lambda path, *entries: tar(path, *entries, mode="w:xz"),
    "x.zip": zipped,
}


@pytest.mark.parametrize("name", MAKERS)
def test_an_archive_is_unpacked(name: str, tmp_path: Path) -> None:
    archive = MAKERS[name](tmp_path / name, *PLAIN)
    extract(archive, tmp_path / "to" / "here")
    assert files(tmp_path / "to" / "here") == FILES
    assert [file.name for file in (tmp_path / "to").iterdir()] == ["here"]
    assert read(archive, "deep/er/b.bin") == FILES["deep/er/b.bin"]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("bad", ["/outside", "../outside", "a/../../outside", "a/..", "../here.txt/x"])
def test_a_path_that_leads_out_is_refused(name: str, bad: str, tmp_path: Path) -> None:
    archive = MAKERS[name](tmp_path / name, *PLAIN, (bad, {}, b"!"))
    refused(archive, tmp_path, f"{re.escape(repr(bad))} in it leads out of the folder")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"?"])
def test_a_device_is_refused(kind: bytes, tmp_path: Path) -> None:
    archive = tar(tmp_path / "x.tar", *PLAIN, ("null", {"type": kind, "devmajor": 1, "devminor": 3}, b""))
    refused(archive, tmp_path, "is neither a file nor a folder")


def test_links_inside_become_files(tmp_path: Path) -> None:
    links = [
        ("deep/link", {"type": tarfile.SYMTYPE, "linkname": "../a.txt"}, b""),
        ("hard", {"type": tarfile.LNKTYPE, "linkname": "deep/er/b.bin"}, b""),
    ]
    extract(tar(tmp_path / "x.tar", *PLAIN, *links), tmp_path / "here")
    assert files(tmp_path / "here") == {**FILES, "deep/link": b"A", "hard": FILES["deep/er/b.bin"]}
    assert not any(file.is_symlink() for file in (tmp_path / "here").rglob("*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("to", ["/etc/passwd", "../outside", "self", "deep", "."])
def test_a_link_that_leads_out_or_nowhere_is_refused(kind: bytes, to: str, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("private")
    entries = [*PLAIN, ("self", {"type": kind, "linkname": to}, b""), ("self/written", {}, b"!")]
    refused(tar(tmp_path / "x.tar", *entries), tmp_path, "is damaged")
    assert (tmp_path / "outside").read_text() == "private"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR])
def test_a_link_in_a_zip_is_refused(kind: int, tmp_path: Path) -> None:
    refused(zipped(tmp_path / "x.zip", ("link", {"mode": kind | 0o777}, b"../outside")), tmp_path, "neither")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_archive_is_named(name: str, share: float, tmp_path: Path) -> None:
    archive = MAKERS[name](tmp_path / name, *PLAIN, ("last", {}, os.urandom(50_000)))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    refused(archive, tmp_path, r"is damaged \(.*\): fetch it again")
    with pytest.raises(InputError, match="is damaged"):
        read(archive, "last")


@pytest.mark.parametrize("blocks", [0, 2, 3])
def test_a_tar_cut_between_two_files_is_named(blocks: int, tmp_path: Path) -> None:
    archive = tar(tmp_path / "x.tar", ("one", {}, b"1"), ("two", {}, b"2"))
    archive.write_bytes(archive.read_bytes()[: 512 * blocks])
    refused(archive, tmp_path, "is damaged")


def test_a_file_that_is_a_folder_too_is_damage(tmp_path: Path) -> None:
    refused(tar(tmp_path / "x.tar", ("a", {}, b"A"), ("a/b", {}, b"B")), tmp_path, "is damaged")


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has no b\.txt"):
        read(tar(tmp_path / "x.tar", *PLAIN), "b.txt")


def test_a_disk_too_small_is_said(tmp_path: Path) -> None:
    info = tarfile.TarInfo("huge")
    info.size = 10**13
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    refused(tmp_path / "x.tar", tmp_path, "make room")


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    extract(tar(tmp_path / "x.tar", *PLAIN), tmp_path / "here")
    assert files(tmp_path / "here") == {}


def test_a_killed_process_leaves_no_folder_of_that_name(tmp_path: Path) -> None:
    archive = tar(tmp_path / "x.tar", *PLAIN)
    code = (
        "import os, shutil, signal, sys\nfrom pathlib import Path\nfrom loadgen.harness.assets import archive\n"
        "archive._content = lambda member: os.kill(os.getpid(), signal.SIGKILL)\n"
        "archive.extract(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(archive), str(tmp_path / "here")], env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert [file.suffix for file in tmp_path.glob("here*")] == [".part"]
    extract(archive, tmp_path / "here")
    assert [file.name for file in tmp_path.glob("here*")] == ["here"]
    assert files(tmp_path / "here") == FILES


def refused(archive: Path, folder: Path, said: str) -> None:
    """Nothing is there afterwards but what was there before."""
    before = set(folder.rglob("*"))
    with pytest.raises(InputError) as error:
        extract(archive, folder / "here")
    assert re.search(said, str(error.value)), error.value
    assert set(folder.rglob("*")) == before
