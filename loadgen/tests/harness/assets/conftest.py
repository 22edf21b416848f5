"""A real HTTP server on this machine, with everything that can go wrong on the way."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadgen.harness.assets.asset import Asset

CONTENT = random.Random(6).randbytes(2_048_000)  # several reads, and no part of it is like another
_BLOCK = 1 << 16  # bytes sent at a time


@dataclass
class Request:
    """What came, and how many bytes went back."""

    path: str
    range: str
    if_range: str
    token: str
    host: str
    served: int = 0


@dataclass
class Answers:
    """What the server does; each test turns what it is about."""

    content: bytes = CONTENT
    files: dict[str, bytes] = field(default_factory=dict)
    """Path -> what is there in the content's place."""
    etag: str = ""
    knows_ranges: bool = True
    knows_if_range: bool = True
    says_length: bool = True
    cut: Callable[[int, int], int] = lambda start, end: end
    """Of an answer with these bytes, the one before which the connection ends."""
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """(status, headers) answered first, one a request."""
    gone: set[str] = field(default_factory=set)
    """Paths that do not exist."""
    moved: dict[str, str] = field(default_factory=dict)
    """Path -> address that it redirects to."""
    token: str = ""
    """What /gated wants."""
    shift: int = 0
    """Bytes by which an answer begins after what was asked for."""
    stall_at: int = 1 << 62
    """Bytes sent in all after which nothing more comes until `go_on`."""
    go_on: threading.Event = field(default_factory=threading.Event)


class Server(ThreadingHTTPServer):
    """Serves the content at any path."""

    daemon_threads = True
    request_queue_size = 50

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.does = Answers()
        self.requests: list[Request] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.bin"

    def at(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}/{path}"

    @property
    def ranges(self) -> list[str]:
        return [request.range.removeprefix("bytes=") for request in self.requests]

    @property
    def served(self) -> int:
        return sum(request.served for request in self.requests)

    def handle_error(self, *_: object) -> None: ...  # a client that went away


class Handler(BaseHTTPRequestHandler):
    server: Server

    @property
    def content(self) -> bytes:
        return self.server.does.files.get(self.path, self.server.does.content)

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        does, asked = self.server.does, self.headers.get("Range", "")
        names = ("If-Range", "Authorization", "Host")
        self.request_ = Request(self.path, asked, *(self.headers.get(name, "") for name in names))
        self.server.requests.append(self.request_)
        changed = does.knows_if_range and self.request_.if_range not in ("", does.etag)
        if self.path in does.moved:
            self._head(302, {"Location": does.moved[self.path], "Content-Length": "0"})
        elif self.path in does.gone:
            self._head(404, {"Content-Length": "0"})
        elif self.path == "/gated" and self.request_.token != f"Bearer {does.token}":
            self._head(403 if self.request_.token else 401, {"Content-Length": "0"})
        elif does.statuses:
            status, headers = does.statuses.pop(0)
            self._head(status, {"Content-Length": "0", **headers})
        elif asked and does.knows_ranges and not changed:
            self._part(*asked.removeprefix("bytes=").split("-"))
        else:
            self._head(200, {"Content-Length": str(len(self.content))} if does.says_length else {})
            self._send(0, len(self.content))

    def _part(self, first: str, last: str) -> None:
        does, size = self.server.does, len(self.content)
        start, end = int(first) + does.shift, min(int(last) + 1 if last else size, size)
        if start >= size:
            self._head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        self._head(206, {"Content-Range": f"bytes {start}-{end - 1}/{size}", "Content-Length": str(end - start)})
        self._send(start, end)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        if self.server.does.etag:
            headers["ETag"] = self.server.does.etag
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, start: int, end: int) -> None:
        does = self.server.does
        content = self.content
        end = does.cut(start, end)
        for at in range(start, end, _BLOCK):
            if self.server.served >= does.stall_at:
                does.go_on.wait(20)
            block = content[at : min(end, at + _BLOCK)]
            self.request_.served += len(block)
            self.wfile.write(block)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.does.go_on.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def asset(server: Server) -> Asset:
    """The server's file, of which all is known."""
    return Asset("model/weights.bin", server.address, "MIT", len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here, and a disk that others use takes seconds."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "inference-bench"
