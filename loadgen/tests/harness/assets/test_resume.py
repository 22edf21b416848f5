"""What a cut, a kill or another process leaves: never a wrong file, never a finished part to fetch again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset, part_of
from loadgen.harness.assets.download import download
from loadgen.harness.assets.ranges import Parts, gaps, joined, split
from loadgen.harness.assets.transfer import Way

WAY = Way(pause_s=0, patience_s=0, least=1 << 18, noted=1 << 18)
ONE = replace(WAY, connections=1)
CONTENT = random.Random(6).randbytes(2_048_000)
MIDDLE = 1_200_000

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted).map(tuple), max_size=8)


@given(spans, st.integers(0, 60), st.integers(0, 60))
def test_gaps_are_what_is_not_there(have: Any, start: int, end: int) -> None:
    there = {byte for first, last in have for byte in range(first, last)}
    missing = gaps(joined(have), start, end)
    assert {byte for first, last in missing for byte in range(first, last)} == set(range(start, end)) - there
    assert joined(missing) == missing


@given(spans, st.integers(1, 5), st.integers(0, 20))
def test_a_split_has_the_same_bytes_once(have: Any, count: int, least: int) -> None:
    whole = [span for span in joined(have) if span[0] < span[1]]
    pieces = split(whole, count, least)
    assert sorted(byte for a, b in pieces for byte in range(a, b)) == [byte for a, b in whole for byte in range(a, b)]
    assert len(pieces) <= count + len(whole)


def fetched(asset: Asset, folder: Path, way: Way = WAY) -> bytes:
    download(asset, folder, lambda there, whole: None, way)
    (file,) = (folder / "model").iterdir()
    return file.read_bytes()


def refused(asset: Asset, folder: Path, way: Way = WAY) -> str:
    with pytest.raises(InputError) as error:
        download(asset, folder, lambda there, whole: None, way)
    assert not (folder / asset.path).exists()
    return str(error.value)


def once(cut: int) -> Callable[[int, int], int]:
    """The first answer with this byte ends before it."""
    left = [cut]
    return lambda start, end: left.pop() if left and start < cut < end else end


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("knows_ranges", [True, False])
def test_cuts_at_random_bytes(seed: int, knows_ranges: bool, server: Any, asset: Asset, tmp_path: Path) -> None:
    """Calls that are given up, and answers that end anywhere: in the end the file is right, and nothing came twice."""
    drawn = random.Random(seed)
    server.does.knows_ranges = knows_ranges
    server.does.etag = drawn.choice(["", '"1"', 'W/"1"'])
    cuts = [drawn.randrange(6)] * 8 + [6]
    server.does.cut = lambda start, end: drawn.randint(start, end) if cuts and cuts.pop() else end
    way = replace(WAY, connections=drawn.randint(1, 4), attempts=2)
    for _ in range(20):
        try:
            assert fetched(asset, tmp_path, way) == CONTENT
            break
        except InputError:
            assert not (tmp_path / asset.path).exists()
    assert (tmp_path / asset.path).read_bytes() == CONTENT
    if knows_ranges:
        assert server.served == len(CONTENT)


def test_a_cut_is_resumed_where_it_was(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.cut = once(MIDDLE)
    assert fetched(asset, tmp_path, ONE) == CONTENT
    assert server.ranges == ["0-2047999", f"{MIDDLE}-2047999"]


def test_only_the_cut_connection_asks_again(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.cut = once(MIDDLE)
    assert fetched(asset, tmp_path) == CONTENT
    assert len(server.ranges) == 5
    assert server.served == len(CONTENT)


@pytest.mark.parametrize(("etag", "again"), [("", "0-"), ('"1"', f"{MIDDLE}-2047999"), ('W/"1"', "0-")])
def test_a_file_without_checksum_is_resumed_only_by_name(
    etag: str, again: str, server: Any, asset: Asset, tmp_path: Path
) -> None:
    """Else nobody could tell that two halves fit; a weak name is none."""
    server.does.cut, server.does.etag = once(MIDDLE), etag
    assert fetched(replace(asset, sha256="", bytes=0), tmp_path, ONE) == CONTENT
    first, *middle, last = server.ranges
    assert (first, last) == ("0-", again) or (first, middle, last) == ("0-", [], "")


def test_a_later_call_goes_on(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.cut = lambda start, end: min(end, MIDDLE)
    said = refused(asset, tmp_path, ONE)
    assert f"{MIDDLE:,} bytes are kept in" in said
    server.does.cut = lambda start, end: end
    server.requests.clear()
    assert fetched(asset, tmp_path, ONE) == CONTENT
    assert server.ranges == [f"{MIDDLE}-2047999"]


def test_parts_from_one_address_fit_another_s(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.etag = '"1"'
    server.does.cut = lambda start, end: min(end, MIDDLE)
    refused(asset, tmp_path, ONE)
    server.does.cut, server.does.etag = lambda start, end: end, '"of the mirror"'
    server.does.gone = {"/weights.bin"}
    server.requests.clear()
    assert fetched(replace(asset, mirrors=(server.at("mirror"),)), tmp_path, ONE) == CONTENT
    assert [(request.path, request.if_range) for request in server.requests] == [
        ("/weights.bin", '"1"'),
        ("/mirror", ""),
    ]
    assert server.served == len(CONTENT) - MIDDLE


def test_without_checksum_no_other_address_goes_on(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.etag = '"1"'
    server.does.cut = lambda start, end: min(end, MIDDLE)
    unknown = replace(asset, sha256="", bytes=0)
    refused(unknown, tmp_path, ONE)
    server.does.cut = lambda start, end: end
    server.requests.clear()
    assert fetched(replace(unknown, address=server.at("other")), tmp_path, ONE) == CONTENT
    assert server.served == len(CONTENT)


@pytest.mark.parametrize("knows_if_range", [True, False])
@pytest.mark.parametrize("has_checksum", [True, False])
def test_a_file_that_changes_meanwhile_is_begun_anew(
    knows_if_range: bool, has_checksum: bool, server: Any, asset: Asset, tmp_path: Path
) -> None:
    does = server.does
    does.etag, does.content, does.knows_if_range = '"1"', bytes(len(CONTENT)), knows_if_range

    def change(start: int, end: int) -> int:
        if does.etag == '"1"':
            does.etag, does.content = '"2"', CONTENT
            return MIDDLE
        return end

    does.cut = change
    known = asset if has_checksum else replace(asset, sha256="")
    assert fetched(known, tmp_path, ONE) == CONTENT
    assert server.requests[1].if_range == '"1"'


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_a_file_with_a_checksum_may_have_many_names(
    knows_if_range: bool, server: Any, asset: Asset, tmp_path: Path
) -> None:
    """As where several machines answer at one address."""

    class Many(server.RequestHandlerClass):  # type: ignore[name-defined]
        def do_GET(self) -> None:
            server.does.etag = f'"{len(server.requests)}"'
            super().do_GET()

    server.RequestHandlerClass, server.does.knows_if_range = Many, knows_if_range
    assert fetched(asset, tmp_path) == CONTENT
    assert len(server.requests) > 4


def test_answers_without_bytes_are_given_up(server: Any, asset: Asset, tmp_path: Path) -> None:
    original = server.RequestHandlerClass._part

    def part(handler: Any, first: str, last: str) -> Any:
        if int(first) == 0:
            return original(handler, first, last)
        nothing = f"bytes {first}-{int(first) - 1}/{len(CONTENT)}"
        return handler._head(206, {"Content-Range": nothing, "Content-Length": "0"})

    server.RequestHandlerClass = type("Empty", (server.RequestHandlerClass,), {"_part": part})
    assert "without any bytes" in refused(asset, tmp_path)
    server.RequestHandlerClass = type("Full", (server.RequestHandlerClass,), {"_part": original})
    assert fetched(asset, tmp_path) == CONTENT


def test_a_server_may_send_less_than_it_is_asked_for(server: Any, asset: Asset, tmp_path: Path) -> None:
    original = server.RequestHandlerClass._part

    def part(handler: Any, first: str, last: str) -> None:
        original(handler, first, str(min(int(last), int(first) + 299_999)))

    server.RequestHandlerClass = type("Short", (server.RequestHandlerClass,), {"_part": part})
    assert fetched(asset, tmp_path) == CONTENT
    assert server.served == len(CONTENT)


def test_a_server_that_loses_its_ranges_sends_it_all_again(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.cut = lambda start, end: min(end, MIDDLE)
    refused(asset, tmp_path, ONE)
    server.does.cut, server.does.knows_ranges = lambda start, end: end, False
    assert fetched(asset, tmp_path) == CONTENT


def test_a_server_without_ranges_that_always_cuts_is_given_up(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.cut, server.does.knows_ranges = lambda start, end: min(end, MIDDLE), False
    assert "Run fetch again" in refused(asset, tmp_path)


def test_an_answer_from_elsewhere_in_the_file_is_not_taken(server: Any, asset: Asset, tmp_path: Path) -> None:
    server.does.shift = 7
    assert fetched(asset, tmp_path) == CONTENT
    assert server.ranges[-1] == ""


def test_a_part_that_is_whole_needs_no_server(server: Any, asset: Asset, tmp_path: Path) -> None:
    part = part_of(tmp_path / asset.path)
    part.parent.mkdir()
    _have(part, CONTENT, [(0, len(CONTENT))])
    assert fetched(asset, tmp_path) == CONTENT
    assert server.requests == []


def test_a_part_of_another_file_is_fetched_anew(server: Any, asset: Asset, tmp_path: Path) -> None:
    part = part_of(tmp_path / asset.path)
    part.parent.mkdir()
    _have(part, bytes(len(CONTENT)), [(0, MIDDLE)])
    assert fetched(asset, tmp_path) == CONTENT


def test_a_part_of_another_length_is_fetched_anew(server: Any, asset: Asset, tmp_path: Path) -> None:
    part = part_of(tmp_path / asset.path)
    part.parent.mkdir()
    _have(part, CONTENT + b"more", [(0, MIDDLE)])
    assert fetched(replace(asset, bytes=0), tmp_path) == CONTENT


def _have(part: Path, content: bytes, have: list[tuple[int, int]]) -> None:
    parts = Parts(part)
    parts.begin(len(content), "elsewhere", "")
    part.write_bytes(content)
    with part.open("r+b", buffering=0) as file:
        for span in have:
            parts.add(*span, file)


@pytest.mark.parametrize("damage", ["cut", "no number", "no list", "no file", "shorter file"])
def test_a_damaged_list_never_says_too_much(damage: str, tmp_path: Path) -> None:
    part = tmp_path / "weights.part"
    _have(part, CONTENT, [(0, 100), (200, 300)])
    ranges = tmp_path / "weights.part.ranges"
    text = ranges.read_text()
    if damage == "cut":
        ranges.write_text(text[:-2])
        assert Parts(part).have == [(0, 100)]
        with part.open("r+b", buffering=0) as file:
            Parts(part).add(5, 120, file)
        assert Parts(part).have == [(0, 120)]
        return
    if damage == "no file":
        part.unlink()
    elif damage == "shorter file":
        part.write_bytes(b"")
    else:
        ranges.write_text("" if damage == "no list" else text.replace("200", "many"))
    assert (Parts(part).have, Parts(part).size) == ([], 0)


PROGRAM = """
import sys
from pathlib import Path
from loadgen.harness.assets.asset import Asset
from loadgen.harness.assets.download import download
from loadgen.harness.assets.transfer import Way

address, size, digest, folder, connections = sys.argv[1:]
asset = Asset("model/weights.bin", address, "MIT", int(size), sha256=digest)
way = Way(pause_s=0.05, connections=int(connections), least=1 << 18, noted=1 << 18)
download(asset, Path(folder), lambda there, whole: None, way)
"""


def start(asset: Asset, folder: Path, connections: int) -> subprocess.Popen[bytes]:
    arguments = (asset.address, str(asset.bytes), asset.sha256, str(folder), str(connections))
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], env=dict(os.environ))


@pytest.mark.parametrize("connections", [1, 4])
def test_a_killed_process_loses_no_finished_part(connections: int, server: Any, asset: Asset, tmp_path: Path) -> None:
    part = part_of(tmp_path / asset.path)
    server.does.stall_at = 1_500_000
    with start(asset, tmp_path, connections) as process:
        until(lambda: server.served >= server.does.stall_at and Parts(part).done >= 500_000)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / asset.path).exists()
    done = Parts(part).done
    server.requests.clear()
    server.does.stall_at = 1 << 62
    server.does.go_on.set()
    assert fetched(asset, tmp_path, replace(WAY, connections=connections)) == CONTENT
    assert server.served == len(CONTENT) - done


def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")
