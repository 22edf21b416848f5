"""The fetch command: what it says, what it gets, and what it keeps for other benchmarks."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadgen.harness.assets import cache
from loadgen.harness.assets.asset import Asset, part_of
from loadgen.harness.assets.ranges import Parts
from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.harness.cli import invoke
from loadgen.harness.report import screen as display

CONTENT = random.Random(6).randbytes(2_048_000)
Make = Callable[..., Benchmark]


@pytest.fixture
def bench(benchmark_of: Make, asset: Asset, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """Squares with a full profile: weights for each of two backends, and data that only a person can get."""
    small = Asset("data/list.txt", "", "CC0", md5=hashlib.md5(b"1 2 3").hexdigest(), gate="ask for it by letter")
    own = replace(asset, backends=("numpy",), dtypes=("float32", "int4"))
    other = replace(asset, path="model/other.bin", backends=("missing",))
    monkeypatch.setattr("fake_bench.ASSETS", [own, other, small], raising=False)
    made = benchmark_of()
    full = Profile("official files", "fake_bench:prepare", is_official=True, assets="fake_bench:ASSETS")
    formats = replace(made.backends["numpy"], dtypes=("float32", "int4", "int8"))
    backends = {**made.backends, "numpy": formats}
    return replace(made, profiles={**made.profiles, "full": full}, backends=backends)


def test_the_command_needs_what_only_a_person_can_get(
    bench: Benchmark, tmp_path: Path, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(bench, ["fetch", "--data", str(tmp_path / "to")]) == 2
    said = capsys.readouterr()
    assert "data/list.txt has no address to download it from: ask for it by letter" in said.err
    for line in ("model/weights.bin: missing", "2.0 MB, MIT", server.address, "first: ask for it by letter"):
        assert line in said.out
    assert "other.bin" not in said.out  # another backend's
    assert (tmp_path / "to" / "model" / "weights.bin").is_file(), "the others are fetched all the same"


def test_the_command_downloads_what_is_missing_or_wrong(
    bench: Benchmark, tmp_path: Path, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "to"
    (folder / "data").mkdir(parents=True)
    (folder / "data/list.txt").write_text("1 2 3")
    (folder / "model").mkdir()
    (folder / "model/weights.bin").write_bytes(b"cut off")
    command = ["fetch", "--data", str(folder)]
    assert invoke(bench, [*command, "--check"]) == 2
    assert "1 of 2 files are missing or wrong" in capsys.readouterr().err
    assert invoke(bench, command) == 0
    said = capsys.readouterr().out
    assert "model/weights.bin: wrong: 7 bytes, not 2,048,000" in said
    assert "data/list.txt: present, checked" in said
    assert (folder / "model/weights.bin").read_bytes() == CONTENT
    assert invoke(bench, [*command, "--check"]) == 0
    assert len(server.requests) == 1


def test_the_command_copies_from_a_folder(bench: Benchmark, tmp_path: Path, server: Any) -> None:
    source, folder = tmp_path / "have", tmp_path / "to"
    source.mkdir()
    (source / "list.txt").write_text("1 2 3")
    (source / "other.bin").write_bytes(CONTENT)
    command = ["fetch", "--backend", "missing", "--data", str(folder), "--from", str(source), "--quiet"]
    assert invoke(bench, command) == 0
    assert {file.name for file in folder.rglob("*") if file.is_file()} == {"list.txt", "other.bin"}
    assert server.requests == []


def test_what_serves_as_well_is_not_asked_for(
    bench: Benchmark, tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As images that lie there unpacked, whose archive only a person can get."""
    weights = Asset("model/weights.bin", server.address, "MIT", bytes=len(CONTENT))
    packed = Asset("data/list.tar", "", "CC0", bytes=9_000_000, gate="ask for it", instead=("data/a", "data/list.txt"))
    monkeypatch.setattr("fake_bench.ASSETS", [weights, packed])
    for name in ("data/list.txt", "model/weights.bin"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(CONTENT)
    for command in (["fetch"], ["fetch", "--check"], ["info", "--profile", "full"]):
        assert invoke(bench, [*command, "--data", str(tmp_path)]) == 0
        assert "data/list.tar: not needed, data/list.txt is there" in (said := capsys.readouterr().out)
    assert "disk needed: about 0 MB more" in said
    (tmp_path / "data/list.txt").unlink()
    assert invoke(bench, ["fetch", "--check", "--data", str(tmp_path)]) == 2


def test_a_file_for_what_is_not_made_yet_has_taken_no_disk(
    benchmark_of: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the prepared images of ResNet-50 and RetinaNet, whose file has its length from the first."""
    made = benchmark_of()
    made = replace(made, profiles={"mini": replace(made.profiles["mini"], disk_gb=0.004)})
    with (tmp_path / "images.bin").open("wb") as file:
        file.write(bytes(1_000_000))
        file.truncate(4_000_000)
    assert invoke(made, ["info", "--data", str(tmp_path)]) == 0
    assert "disk needed: about 3 MB more" in capsys.readouterr().out


def test_info_lists_files_without_reading_them(
    bench: Benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(bench, ["info", "--profile", "full", "--data", str(tmp_path)]) == 0
    assert "disk needed: about 2 MB more and 1 file of unknown size" in capsys.readouterr().out
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights.bin").write_bytes(CONTENT)
    assert invoke(bench, ["info", "--profile", "full", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "disk needed: about 0 MB more and 1 file of unknown size" in said
    assert "model/weights.bin: present" in said
    assert "data/list.txt: missing" in said


def test_another_number_format_may_need_other_files(
    bench: Benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dtype, needed in (("int4", True), ("int8", False)):
        assert invoke(bench, ["fetch", "--check", "--dtype", dtype, "--data", str(tmp_path)]) == 2
        assert ("weights.bin" in capsys.readouterr().out) == needed


@pytest.mark.parametrize(("options", "message"), [([], "squares has no official"), (["--profile", "mini"], "the mini")])
def test_a_benchmark_without_files_says_so(
    options: list[str], message: str, benchmark_of: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(benchmark_of(), ["fetch", *options]) == 2
    assert message in capsys.readouterr().err


def test_another_folder_gets_the_same_file_without_a_request(
    bench: Benchmark, tmp_path: Path, server: Any, asset: Asset, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fetch", "--backend", "missing", "--data"]
    source = tmp_path / "have"
    source.mkdir()
    (source / "list.txt").write_text("1 2 3")
    (source / "other.bin").write_bytes(CONTENT)
    assert invoke(bench, [*command, str(tmp_path / "a"), "--from", str(source)]) == 0
    assert invoke(bench, [*command, str(tmp_path / "b")]) == 0
    assert f"model/other.bin: 2.0 MB taken from {cache.blob(asset)}" in capsys.readouterr().out
    assert (tmp_path / "b/data/list.txt").read_text() == "1 2 3"  # the one that only a person can get, too
    assert (tmp_path / "a/model/other.bin").samefile(tmp_path / "b/model/other.bin")
    assert not (tmp_path / "a/model/other.bin").samefile(source / "other.bin")
    assert server.requests == []


def test_a_file_that_was_changed_where_it_is_used_is_fetched_anew(
    bench: Benchmark, tmp_path: Path, server: Any, asset: Asset
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/list.txt").write_text("1 2 3")
    for _ in range(2):
        assert invoke(bench, ["fetch", "--quiet", "--data", str(tmp_path)]) == 0
        assert (tmp_path / "model/weights.bin").read_bytes() == CONTENT
        with (tmp_path / "model/weights.bin").open("r+b") as file:
            file.write(b"!" if file.read(1) != b"!" else b"?")
    assert len(server.requests) == 2


def test_without_links_files_are_copied(
    bench: Benchmark, tmp_path: Path, asset: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(cache.os, "link", refuse)
    (tmp_path / "weights.bin").write_bytes(CONTENT)
    assert cache.keep(asset, tmp_path / "weights.bin") == ""
    assert cache.take(asset, tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == CONTENT
    kept = cache.blob(asset)
    assert kept is not None
    assert not kept.samefile(tmp_path / "again.bin")
    kept.unlink()
    monkeypatch.setattr("loadgen.harness.assets.asset.shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert "needs 0.0 GB more and has 0.0 GB free" in cache.keep(asset, tmp_path / "weights.bin")
    assert not kept.exists()


def test_a_file_without_checksum_is_not_kept(tmp_path: Path, asset: Asset) -> None:
    unknown = replace(asset, sha256="")
    (tmp_path / "weights.bin").write_bytes(CONTENT)
    assert cache.keep(unknown, tmp_path / "weights.bin") == ""
    assert not cache.take(unknown, tmp_path / "again.bin")
    assert not (cache.root() / "blobs").exists()


def test_what_a_killed_copy_left_is_removed(bench: Benchmark, tmp_path: Path, server: Any) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/list.txt").write_text("1 2 3")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights.bin.4242.part").write_bytes(b"half")
    assert invoke(bench, ["fetch", "--quiet", "--data", str(tmp_path)]) == 0
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["weights.bin"]


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 1.0, 2.0, 12.0, 14.0, 18.0])
    monkeypatch.setattr(display.time, "monotonic", lambda: next(now))
    with display.transferring("weights.bin", display.console(quiet=False)) as show:
        for there in (5_000_000, 10_000_000, 29_000_000, 30_000_000, 41_000_000):
            show(there, 61_000_000)
    assert capsys.readouterr().out.splitlines() == [
        "weights.bin: 29.0 of 61.0 MB  2.0 MB/s  ETA 16 s",
        "weights.bin: 41.0 of 61.0 MB  2.0 MB/s  ETA 10 s",
    ]


PROGRAM = """
import sys
from loadgen.harness.assets.asset import Asset
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.harness.cli import invoke
from loadgen.settings import Scenario

address, size, digest, folder = sys.argv[1:]
ASSETS = (Asset("model/weights.bin", address, "MIT", int(size), sha256=digest),)
full = Profile("official files", "", assets="__main__:ASSETS")
bench = Benchmark("x", "X", "bert", (Scenario.Offline,), "", {"numpy": BackendSpec("")}, "", "", {"full": full})
sys.stdout.reconfigure(line_buffering=True)
sys.exit(invoke(bench, ["fetch", "--data", folder]))
"""


def start(asset: Asset, folder: Path) -> subprocess.Popen[str]:
    arguments = (asset.address, str(asset.bytes), asset.sha256, str(folder))
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def read_until(process: subprocess.Popen[str], said: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if said in line:
            return
    raise AssertionError(f"it never said {said!r}")


@pytest.mark.parametrize(("folders", "is_killed"), [(("a", "a"), False), (("a", "b"), False), (("a", "a"), True)])
def test_two_processes_fetch_a_file_once(
    folders: tuple[str, str], is_killed: bool, server: Any, asset: Asset, tmp_path: Path
) -> None:
    """The second waits, and takes what the first has got; if the first is killed, it does the rest itself."""
    server.does.stall_at = 1_000_000
    one, two = (tmp_path / name for name in folders)
    with start(asset, one) as first:
        while server.served < server.does.stall_at:
            assert first.poll() is None
            time.sleep(0.01)
        with start(asset, two) as second:
            read_until(second, "waiting for it")
            if is_killed:
                first.send_signal(signal.SIGKILL)
                first.wait()
            server.does.go_on.set()
            read_until(second, "all 1 files are there")
    assert (first.returncode, second.returncode) == (-signal.SIGKILL if is_killed else 0, 0)
    assert (two / asset.path).read_bytes() == CONTENT
    if not is_killed:
        assert (one / asset.path).samefile(two / asset.path)
        assert server.served == len(CONTENT)
    assert Parts(part_of(two / asset.path)).done == 0
