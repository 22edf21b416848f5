"""Fetching official files from a real server on this machine, with everything that can go wrong on the way."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadgen.contracts import InputError
from loadgen.harness.assets import Asset, part_of
from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.harness.cli import invoke
from loadgen.harness.download import download

CONTENT = bytes(range(256)) * 20_000  # 5 MB: several reads
MIDDLE = 3_000_000
Make = Callable[..., Benchmark]


class Server(ThreadingHTTPServer):
    """Serves CONTENT at any path. The knobs are what a test turns; `ranges` are the requests that came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.cuts = 0
        """Answers that end in the middle before one comes whole."""
        self.knows_ranges = True
        self.says_length = True
        self.statuses: list[int] = []
        """Answered first, one a request."""
        self.shift = 0
        """Bytes by which an answer begins after what was asked for."""
        self.ranges: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range", "")
        server.ranges.append(asked)
        if self.path == "/moved":
            self._head(302, {"Location": "/weights.bin", "Content-Length": "0"})
        elif server.statuses:
            self._head(server.statuses.pop(0), {"Content-Length": "0"})
        elif asked and server.knows_ranges:
            self._part(int(asked.removeprefix("bytes=").removesuffix("-")) + server.shift)
        else:
            self._head(200, {"Content-Length": str(len(server.content))} if server.says_length else {})
            self._send(0)

    def _part(self, start: int) -> None:
        size = len(self.server.content)
        if start >= size:
            self._head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        self._head(206, {"Content-Range": f"bytes {start}-{size - 1}/{size}", "Content-Length": str(size - start)})
        self._send(start)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, start: int) -> None:
        end = MIDDLE if self.server.cuts else len(self.server.content)
        self.server.cuts = max(0, self.server.cuts - 1)
        self.wfile.write(self.server.content[start:end])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def asset(server: Server) -> Asset:
    return Asset("model/weights.bin", server.address, "MIT", len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


def fetched(asset: Asset, folder: Path) -> bytes:
    download(asset, folder, lambda there, whole: None, pause_s=0)
    (file,) = (folder / "model").iterdir()
    return file.read_bytes()


def refused(asset: Asset, folder: Path) -> str:
    """The message; nothing has the file's name afterwards."""
    with pytest.raises(InputError) as error:
        download(asset, folder, lambda there, whole: None, pause_s=0)
    assert not (folder / asset.path).exists()
    return str(error.value)


def test_a_file_comes_whole(server: Server, asset: Asset, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    download(asset, tmp_path, lambda there, whole: seen.append((there, whole)))
    assert (tmp_path / asset.path).read_bytes() == CONTENT
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert server.ranges == [""]


def test_an_address_may_move(server: Server, asset: Asset, tmp_path: Path) -> None:
    moved = replace(asset, address=server.address.replace("weights.bin", "moved"))
    assert fetched(moved, tmp_path) == CONTENT


def test_a_cut_is_resumed_where_it_was(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.cuts = 1
    assert fetched(asset, tmp_path) == CONTENT
    assert server.ranges == ["", f"bytes={MIDDLE}-"]


def test_a_cut_of_a_file_without_checksum_begins_anew(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.cuts = 1
    assert fetched(replace(asset, sha256="", bytes=0), tmp_path) == CONTENT
    assert server.ranges == ["", ""]


def test_a_later_call_goes_on(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.cuts = 1000
    said = refused(asset, tmp_path)
    assert f"{MIDDLE:,} bytes are kept in" in said
    assert part_of(tmp_path / asset.path).read_bytes() == CONTENT[:MIDDLE]
    server.cuts = 0
    server.ranges.clear()
    assert fetched(asset, tmp_path) == CONTENT
    assert server.ranges == [f"bytes={MIDDLE}-"]


def test_a_whole_part_needs_no_server(server: Server, asset: Asset, tmp_path: Path) -> None:
    part = part_of(tmp_path / asset.path)
    for known in (asset, replace(asset, bytes=0)):  # the second learns from the server that nothing is missing
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(CONTENT)
        assert fetched(known, tmp_path) == CONTENT
        (tmp_path / asset.path).unlink()
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_server_without_ranges_sends_it_all_again(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.cuts, server.knows_ranges = 1, False
    assert fetched(asset, tmp_path) == CONTENT
    assert server.ranges == ["", f"bytes={MIDDLE}-"]


def test_a_server_without_ranges_that_always_cuts_is_given_up(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.cuts, server.knows_ranges = 1000, False
    assert "Run fetch again" in refused(asset, tmp_path)


def test_an_answer_from_elsewhere_in_the_file_is_not_taken(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.cuts, server.shift = 1, 7
    assert fetched(asset, tmp_path) == CONTENT
    assert server.ranges == ["", f"bytes={MIDDLE}-", ""]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_of_another_file_is_found_out(size: int, asset: Asset, tmp_path: Path) -> None:
    part = part_of(tmp_path / asset.path)
    part.parent.mkdir()
    part.write_bytes(bytes(size))
    assert "it is removed" in refused(asset, tmp_path)
    assert fetched(asset, tmp_path) == CONTENT


def test_a_part_longer_than_the_file_is_found_out(asset: Asset, tmp_path: Path) -> None:
    part = part_of(tmp_path / asset.path)
    part.parent.mkdir()
    part.write_bytes(CONTENT + b"more")
    assert fetched(replace(asset, bytes=0), tmp_path) == CONTENT


def test_a_wrong_checksum_is_no_file(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    said = refused(asset, tmp_path)
    assert f"its sha256 is {hashlib.sha256(server.content).hexdigest()}, not {asset.sha256}" in said
    assert list((tmp_path / "model").iterdir()) == []


def test_another_size_is_refused_before_it_comes(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.content = CONTENT + b"!"
    assert "the file there has 5,120,001 bytes, the official one 5,120,000" in refused(asset, tmp_path)
    assert list((tmp_path / "model").iterdir()) == []


def test_a_file_whose_end_nobody_knows_is_refused(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.says_length = False
    assert "nobody says how long" in refused(replace(asset, bytes=0), tmp_path)
    assert fetched(asset, tmp_path) == CONTENT  # the size is known: a cut is seen


def test_a_cut_of_an_answer_without_length_is_seen(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.says_length, server.cuts, server.knows_ranges = False, 1000, False
    assert f"{MIDDLE:,} of {len(CONTENT):,} bytes" in refused(replace(asset, sha256=""), tmp_path)


@pytest.mark.parametrize("status", [404, 403, 401, 410])
def test_a_refusal_is_final_and_names_the_gate(status: int, server: Server, asset: Asset, tmp_path: Path) -> None:
    server.statuses = [status] * 100
    said = refused(replace(asset, gate="accept the licence at https://example.org"), tmp_path)
    assert re.search(rf"answered {status} .*First: accept the licence .*--from", said)
    assert len(server.ranges) == 1


def test_a_busy_server_is_asked_again(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500]
    assert fetched(asset, tmp_path) == CONTENT


def test_no_server_is_an_input_error(asset: Asset, tmp_path: Path) -> None:
    gone = replace(asset, address="http://127.0.0.1:9/weights.bin")
    assert "http://127.0.0.1:9/weights.bin" in refused(gone, tmp_path)


def test_a_disk_too_small_is_said_before_the_first_byte(server: Server, asset: Asset, tmp_path: Path) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 10**17

    server.content = Huge(CONTENT)
    assert "GB free: make room" in refused(replace(asset, bytes=0), tmp_path)
    assert list((tmp_path / "model").iterdir()) == []


@pytest.fixture
def bench(benchmark_of: Make, asset: Asset, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """Squares with a full profile: weights for each of two backends, and data that only a person can get."""
    small = Asset("data/list.txt", "", "CC0", md5=hashlib.md5(b"1 2 3").hexdigest(), gate="ask for it by letter")
    own = replace(asset, backends=("numpy",), dtypes=("float32", "int4"))
    other = replace(asset, path="model/other.bin", backends=("missing",))
    monkeypatch.setattr("fake_bench.ASSETS", [own, other, small], raising=False)
    made = benchmark_of()
    full = Profile("official files", "fake_bench:prepare", is_official=True, assets="fake_bench:ASSETS")
    return replace(made, profiles={**made.profiles, "full": full})


def test_the_command_needs_what_only_a_person_can_get(
    bench: Benchmark, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(bench, ["fetch", "--data", str(tmp_path / "to")]) == 2
    said = capsys.readouterr()
    assert "data/list.txt has no address to download it from: ask for it by letter" in said.err
    for line in ("model/weights.bin: missing", "5.1 MB, MIT", server.address, "first: ask for it by letter"):
        assert line in said.out
    assert "other.bin" not in said.out  # another backend's
    assert server.ranges == []


def test_the_command_downloads_what_is_missing_or_wrong(
    bench: Benchmark, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "to"
    (folder / "data").mkdir(parents=True)
    (folder / "data/list.txt").write_text("1 2 3")
    (folder / "model").mkdir()
    (folder / "model/weights.bin").write_bytes(b"cut off")
    command = ["fetch", "--data", str(folder)]
    assert invoke(bench, [*command, "--check"]) == 2
    assert "1 of 2 files are not right" in capsys.readouterr().err
    assert invoke(bench, command) == 0
    said = capsys.readouterr().out
    assert "model/weights.bin: wrong: 7 bytes, not 5,120,000" in said
    assert "data/list.txt: present, checked" in said
    assert (folder / "model/weights.bin").read_bytes() == CONTENT
    assert invoke(bench, [*command, "--check"]) == 0
    assert len(server.ranges) == 1


def test_the_command_copies_from_a_folder(bench: Benchmark, tmp_path: Path, server: Server) -> None:
    source, folder = tmp_path / "have", tmp_path / "to"
    source.mkdir()
    (source / "list.txt").write_text("1 2 3")
    (source / "other.bin").write_bytes(CONTENT)
    command = ["fetch", "--backend", "missing", "--data", str(folder), "--from", str(source), "--quiet"]
    assert invoke(bench, command) == 0
    assert {file.name for file in folder.rglob("*") if file.is_file()} == {"list.txt", "other.bin"}
    assert server.ranges == []


def test_info_lists_files_without_reading_them(
    bench: Benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights.bin").write_bytes(CONTENT)
    assert invoke(bench, ["info", "--profile", "full", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
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
