"""Downloading one file from a real server: what each answer leads to."""

from __future__ import annotations

import errno
import hashlib
import random
import re
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from loadgen.contracts import InputError
from loadgen.harness.assets import transfer
from loadgen.harness.assets.asset import Asset
from loadgen.harness.assets.download import download
from loadgen.harness.assets.transfer import Way

WAY = Way(pause_s=0, patience_s=0, least=1 << 18, noted=1 << 18)
WHOLE = "0-2047999"
MIDDLE = 1_200_000
CONTENT = random.Random(6).randbytes(2_048_000)


def fetched(asset: Asset, folder: Path, way: Way = WAY) -> bytes:
    """The content; nothing but the file is left."""
    download(asset, folder, lambda there, whole: None, way)
    (file,) = (folder / "model").iterdir()
    return file.read_bytes()


def refused(asset: Asset, folder: Path, way: Way = WAY) -> str:
    """The message; nothing has the file's name afterwards."""
    with pytest.raises(InputError) as error:
        download(asset, folder, lambda there, whole: None, way)
    assert not (folder / asset.path).exists()
    return str(error.value)


def left(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "model").iterdir())


@pytest.mark.parametrize("connections", [1, 4])
def test_a_file_comes_whole(connections: int, server: Any, asset: Asset, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    download(asset, tmp_path, lambda *now: seen.append(now), replace(WAY, connections=connections))
    assert (tmp_path / asset.path).read_bytes() == CONTENT
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len(server.ranges) == connections
    assert server.served == len(CONTENT)


def test_a_small_file_takes_one_connection(server: Any, asset: Asset, tmp_path: Path) -> None:
    assert fetched(asset, tmp_path, Way()) == CONTENT
    assert server.ranges == [WHOLE]


def test_a_file_of_unknown_length_is_shared_too(server: Any, asset: Asset, tmp_path: Path) -> None:
    assert fetched(replace(asset, bytes=0), tmp_path) == CONTENT
    assert len(server.ranges) == 4
    assert server.ranges[0] == "0-"


def test_a_server_without_ranges_sends_one_stream(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.knows_ranges = False
    assert fetched(asset, tmp_path) == CONTENT
    assert len(server.requests) == 1


def test_an_address_may_move(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.moved = {"/moved": "/weights.bin"}
    assert fetched(replace(asset, address=server.at("moved")), tmp_path) == CONTENT


def test_a_wrong_checksum_is_no_file(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.content = CONTENT[:-1] + b"!"
    said = refused(asset, tmp_path)
    assert f"its sha256 is {hashlib.sha256(server.does.content).hexdigest()}, not {asset.sha256}" in said
    assert "it is removed" in said
    assert left(tmp_path) == []


def test_another_size_is_refused_before_it_comes(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.content = CONTENT + b"!"
    assert "the file there has 2,048,001 bytes, the official one 2,048,000" in refused(asset, tmp_path)
    assert left(tmp_path) == []


def test_a_file_whose_end_nobody_knows_is_refused(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.says_length = server.does.knows_ranges = False
    assert "the length of the file is not known" in refused(replace(asset, bytes=0), tmp_path)
    assert fetched(asset, tmp_path) == CONTENT  # the size is known: a cut is seen


@pytest.mark.parametrize("more", [-1, 1, 1_000_000])
def test_an_answer_without_length_must_have_the_known_one(more: int, server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.says_length = server.does.knows_ranges = False
    server.does.content = CONTENT[:-1] if more < 0 else CONTENT + bytes(more)
    said = refused(replace(asset, sha256=""), tmp_path)
    assert re.search(r"ended after 2,047,999 of 2,048,000" if more < 0 else r"the server sent more than the", said)


@pytest.mark.parametrize("status", [404, 403, 401, 410])
def test_a_refusal_is_final_and_names_the_gate(status: int, server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.statuses = [(status, {})] * 100
    said = refused(replace(asset, gate="accept the licence at https://example.org"), tmp_path)
    assert re.search(rf"answered {status} .*First: accept the licence .*--from", said)
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.statuses = [(503, {}), (429, {}), (500, {})]
    assert fetched(asset, tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [("7", 7, 7), (formatdate(usegmt=True), 0, 1), ("1000000", 60, 60), ("soon", 0, 0), ("", 0, 0)],
)
def test_a_server_is_left_alone_as_long_as_it_asks(
    said: str, least: float, most: float, server: Any, asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(transfer, "_pause", lambda stop, seconds: pauses.append(seconds))
    server.does.statuses = [(429, {"Retry-After": said} if said else {})]
    assert fetched(asset, tmp_path, replace(WAY, connections=1, patience_s=60)) == CONTENT
    (pause,) = pauses
    assert least <= pause <= most


def test_pauses_grow_and_end(asset: Asset, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(transfer, "_pause", lambda stop, seconds: pauses.append(seconds))
    server.does.statuses = [(503, {})] * 100
    assert "answered 503" in refused(asset, tmp_path, Way())
    assert pauses == [2, 4, 8, 16]


def test_a_server_that_allows_two_connections_gets_two(server: Any, asset: Asset, tmp_path: Path) -> None:
    """The third and fourth request of a round are refused: the next round has fewer."""
    original = server.RequestHandlerClass._part

    def part(handler: Any, first: str, last: str) -> None:
        if int(first) and len(server.requests) <= 4:
            handler._head(429, {"Content-Length": "0"})
        else:
            original(handler, first, last)

    server.RequestHandlerClass = type("Strict", (server.RequestHandlerClass,), {"_part": part})
    assert fetched(asset, tmp_path) == CONTENT
    assert len(server.requests) in (5, 6)
    assert server.served == len(CONTENT)


def test_no_server_is_an_input_error(asset: Asset, tmp_path: Path) -> None:
    gone = replace(asset, address="http://127.0.0.1:9/weights.bin")
    assert "http://127.0.0.1:9/weights.bin" in refused(gone, tmp_path)


def test_a_mirror_is_asked_when_an_address_fails(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.gone = {"/lost"}
    mirrors = (server.at("lost"), server.address)
    lost = replace(asset, address="http://127.0.0.1:9/weights.bin", mirrors=mirrors)
    assert fetched(lost, tmp_path) == CONTENT
    assert [request.path for request in server.requests[:2]] == ["/lost", "/weights.bin"]


def test_every_address_s_refusal_is_told(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.gone = {"/lost", "/weights.bin"}
    said = refused(replace(asset, mirrors=(server.at("lost"),)), tmp_path)
    assert [line.split(": ")[0] for line in said.splitlines()] == [server.address, server.at("lost")]


def test_a_mirror_with_another_file_does_not_help(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.content = CONTENT[:-1] + b"!"
    said = refused(replace(asset, mirrors=(server.at("mirror"),)), tmp_path)
    assert said.count("it is removed") == 2
    assert left(tmp_path) == []


@pytest.fixture
def gated(server: Any, asset: Asset, monkeypatch: pytest.MonkeyPatch) -> Asset:
    server.does.token = "secret"
    monkeypatch.setenv("MODEL_TOKEN", "secret")
    gate = "accept the licence at https://example.org"
    return replace(asset, address=server.at("gated"), gate=gate, token="MODEL_TOKEN")


def test_a_token_opens_a_gate(server: Any, gated: Asset, tmp_path: Path) -> None:
    assert fetched(gated, tmp_path) == CONTENT


@pytest.mark.parametrize(("value", "said"), [("", "401 .*MODEL_TOKEN is not set"), ("stale", "403 .*not accepted")])
def test_a_closed_gate_says_what_to_do(
    value: str, said: str, gated: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", value)
    message = refused(gated, tmp_path)
    assert re.search(said, message)
    assert "First: accept the licence at https://example.org, then set MODEL_TOKEN to your access token." in message
    assert "stale" not in message


def test_a_token_stays_with_its_host(server: Any, gated: Asset, tmp_path: Path) -> None:
    """A redirect to another host, and a mirror there, come without it; the same host gets it after a redirect too."""
    elsewhere = server.at("elsewhere", "localhost")
    for moved in (elsewhere, server.at("same")):
        server.does.moved = {"/first": moved}
        assert fetched(replace(gated, address=server.at("first")), tmp_path) == CONTENT
        (tmp_path / gated.path).unlink()
    server.does.gone = {"/gated"}
    assert fetched(replace(gated, mirrors=(elsewhere,)), tmp_path) == CONTENT
    tokens: dict[str, set[str]] = {}
    for request in server.requests:
        tokens.setdefault(request.path, set()).add(request.token)
    sent = {"Bearer secret"}
    assert tokens == {"/first": sent, "/elsewhere": {""}, "/same": sent, "/gated": sent}


def test_a_disk_too_small_is_said_before_the_first_byte(server: Any, asset: Asset, tmp_path: Path) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 10**17

    server.does.content = Huge(CONTENT)
    assert "GB free: make room" in refused(replace(asset, bytes=0, mirrors=(server.at("mirror"),)), tmp_path)
    assert left(tmp_path) == []
    assert {request.path for request in server.requests} == {"/weights.bin"}  # a mirror would not help


def test_a_disk_that_fills_up_keeps_what_came(
    server: Any, asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 1_000_000
    written = transfer._written

    def full(file: Any, chunk: bytes) -> Any:
        if file.tell() + len(chunk) > room:
            yield from written(file, chunk[: room - file.tell()])
            raise OSError(errno.ENOSPC, "No space left on device")
        yield from written(file, chunk)

    way = replace(WAY, connections=1)
    monkeypatch.setattr(transfer, "_written", full)
    said = refused(replace(asset, mirrors=(server.at("mirror"),)), tmp_path, way)
    assert re.search(rf"model is full; {room:,} bytes are kept in .*: make room, then run fetch again", said)
    monkeypatch.setattr(transfer, "_written", written)
    server.requests.clear()
    assert fetched(asset, tmp_path, way) == CONTENT
    assert server.ranges == [f"{room}-2047999"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://no-such-host.invalid/weights.bin", "the host is not found (is this machine online, or does it need"),
        ("http://127.0.0.1:9/weights.bin", "no connection (Connection refused)"),
    ],
)
def test_a_network_that_fails_is_told_in_words(
    address: str, said: str, asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    message = refused(replace(asset, address=address, mirrors=()), tmp_path)
    assert f"{address}: {said}" in message
    assert "Run fetch again, or get it by hand" in message
    assert not re.search(r"[A-Z][a-z]+Error|object at|urllib3|Max retries", message)
