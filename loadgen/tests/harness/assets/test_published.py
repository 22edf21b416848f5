"""Files that a server lists with their checksums, as MLCommons does for its large folders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset
from loadgen.harness.assets.published import expanded
from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.harness.cli import invoke

FILES = {".metadata": b"the list", "sharded/a 0": b"first", "sharded/a 1": b"second", "README": b"read me"}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def listed(server: Any) -> Asset:
    """One of FILES, which lie in a folder within the published one; beside that folder is another file."""
    sums = {f"./weights/{name}": md5(content) for name, content in FILES.items()} | {"./other.txt": md5(b"-")}
    lines = "".join(f"{md5_}  {path}\n" for path, md5_ in sums.items())
    server.does.files |= {
        "/metadata/dlrm.uri": f"{server.at('bucket/v1')}\n".encode(),
        "/metadata/dlrm.md5": lines.encode(),
        **{f"/bucket/v1/weights/{name.replace(' ', '%20')}": content for name, content in FILES.items()},
    }
    return Asset("model/w/.metadata", "", "free", listing=server.at("metadata/dlrm"), gate="or by post")


@pytest.fixture
def bench(benchmark_of: Callable[..., Benchmark], listed: Asset, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    monkeypatch.setattr("fake_bench.ASSETS", [listed], raising=False)
    made = benchmark_of()
    full = Profile("official files", "fake_bench:prepare", is_official=True, assets="fake_bench:ASSETS")
    return replace(made, profiles={**made.profiles, "full": full})


def test_all_files_of_the_list_are_fetched_and_checked(
    bench: Benchmark, server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fetch", "--data", str(tmp_path)]
    assert invoke(bench, command) == 0
    for name, content in FILES.items():
        assert (tmp_path / "model/w" / name).read_bytes() == content
    assert not list(tmp_path.rglob("other.txt")), "it lies beside the folder of the file that is known"
    assert "all 4 files are there" in capsys.readouterr().out
    server.does.gone = set(server.does.files)
    assert invoke(bench, [*command, "--check"]) == 0, "the list lies beside its files: no server is asked"
    (tmp_path / "model/w/sharded/a 1").write_bytes(b"changed")
    assert invoke(bench, [*command, "--check"]) == 2
    assert "model/w/sharded/a 1: wrong: its md5 is" in capsys.readouterr().out


def test_a_file_that_is_not_the_listed_one_is_an_error(
    bench: Benchmark, server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.does.files["/bucket/v1/weights/sharded/a%200"] = b"wrong"
    assert invoke(bench, ["fetch", "--data", str(tmp_path)]) == 2
    assert "model/w/sharded/a 0" in capsys.readouterr().err
    assert (tmp_path / "model/w/sharded/a 1").is_file(), "the others are fetched all the same"


def test_what_is_known_of_a_file_goes_before_the_list(listed: Asset, tmp_path: Path) -> None:
    known = replace(listed, md5=md5(b"another"), licence="known")
    first = expanded([known], tmp_path, may_ask=True)[0]
    assert (first.md5, first.licence) == (md5(b"another"), "known")


def test_without_the_list_the_assets_are_as_they_were(listed: Asset, server: Any, tmp_path: Path) -> None:
    assert expanded([listed], tmp_path, may_ask=False) == [listed]
    server.does.gone = {"/metadata/dlrm.uri"}
    with pytest.raises(InputError, match=r"metadata/dlrm\.uri"):
        expanded([listed], tmp_path, may_ask=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0123  ./weights/.metadata", "line 1: '0123  ./weights/.metadata' is not `md5  ./path`"),
        (f"{md5(b'')}  ../../.metadata", "is not `md5  ./path`"),
        (f"{md5(b'')}  /etc/.metadata", "is not `md5  ./path`"),
        (f"{md5(b'')}  ./weights/other", r"no \.metadata in it"),
    ],
)
def test_another_list_is_an_error(lines: str, message: str, listed: Asset, server: Any, tmp_path: Path) -> None:
    server.does.files["/metadata/dlrm.md5"] = lines.encode()
    with pytest.raises(InputError, match=message) as caught:
        expanded([listed], tmp_path, may_ask=True)
    assert "dlrm.md5" in str(caught.value)
