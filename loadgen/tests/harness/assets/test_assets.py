"""Official files in a folder: what is wrong with one, and how one joins, whole or not at all."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.contracts import InputError
from loadgen.harness.assets import asset as assets
from loadgen.harness.assets.asset import Asset, check_space, copy, fault

CONTENT = b"official weights" * 1000
WEIGHTS = Asset(
    path="model/weights.bin",
    address="https://example.org/weights.bin",
    licence="Apache-2.0",
    bytes=len(CONTENT),
    md5=hashlib.md5(CONTENT).hexdigest(),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)
UNKNOWN = Asset("data/questions.json", "", "none", gate="sign the agreement at https://example.org")
CHANGED = CONTENT[:-1] + b"!"


@pytest.mark.parametrize(
    ("asset", "content", "said"),
    [
        (WEIGHTS, CONTENT, ""),
        (WEIGHTS, CONTENT[:-1], "wrong: 15,999 bytes, not 16,000"),
        (WEIGHTS, b"", "wrong: 0 bytes, not 16,000"),
        (WEIGHTS, CHANGED, f"wrong: its sha256 is {hashlib.sha256(CHANGED).hexdigest()}, not {WEIGHTS.sha256}"),
        (replace(WEIGHTS, sha256=""), CHANGED, f"its md5 is {hashlib.md5(CHANGED).hexdigest()}, not {WEIGHTS.md5}"),
        (UNKNOWN, b"anything", ""),
        (UNKNOWN, b"", "wrong: 0 bytes"),
    ],
)
def test_what_is_wrong_with_a_file(asset: Asset, content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert fault(asset, file) == "missing"
    file.write_bytes(content)
    found = fault(asset, file)
    assert found.endswith(said)
    assert bool(found) == bool(said)


def test_a_long_checksum_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "day_23.npz").write_bytes(bytes(3 << 20))
    assets.digest(tmp_path / "day_23.npz")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(assets, "_SAID_EACH_S", 0.0)
    assets.digest(tmp_path / "day_23.npz")
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("checksum of day_23.npz: 0.0 of 0.0 GB  ETA ")
    assert last.endswith("ETA 0 s")


def test_a_quick_look_reads_no_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CHANGED)
    assert fault(WEIGHTS, tmp_path / "file", deep=False) == ""


@pytest.mark.parametrize("name", ["model/weights.bin", "weights.bin"])
def test_a_copy_is_found_by_its_path_or_its_name(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source" / name
    source.parent.mkdir(parents=True)
    source.write_bytes(CONTENT)
    copy(WEIGHTS, tmp_path / "source", tmp_path / "to")
    assert (tmp_path / "to/model/weights.bin").read_bytes() == CONTENT
    assert source.is_file()


def test_a_wrong_copy_is_refused_and_what_was_there_stays(tmp_path: Path) -> None:
    source, target = tmp_path / "weights.bin", tmp_path / "to/model/weights.bin"
    source.write_bytes(CHANGED)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"older")
    with pytest.raises(InputError, match=r"is not model/weights\.bin \(wrong: its sha256"):
        copy(WEIGHTS, tmp_path, tmp_path / "to")
    assert target.read_bytes() == b"older"
    assert list(target.parent.iterdir()) == [target]
    assert source.is_file()


def test_a_missing_source_says_what_was_looked_for_and_the_gate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no data/questions\.json or questions\.json: .*sign the agreement"):
        copy(UNKNOWN, tmp_path, tmp_path / "to")


def test_a_full_disk_is_said_before(tmp_path: Path) -> None:
    check_space(tmp_path, 0)
    with pytest.raises(InputError, match=r"needs 1,000,000\.0 GB more and has"):
        check_space(tmp_path, 10**15)
