"""One request for a part of an official file, and what the answer means."""

from __future__ import annotations

import os
import re
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset

_CONNECT_S, _READ_S = 20, 60
_TIMEOUT = urllib3.Timeout(connect=_CONNECT_S, read=_READ_S)
_RETRY = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=10)  # repeating is the caller's


class AddressError(InputError):
    """This address will not give the file; another may."""


class Busy(HTTPError):
    """The server wants to be asked later: after `wait_s` seconds, if it said so."""

    def __init__(self, said: str, wait_s: float) -> None:
        super().__init__(said)
        self.wait_s = wait_s


class OtherRange(HTTPError):
    """The answer does not hold the bytes that were asked for."""


class Changed(HTTPError):
    """The file there is no longer the one whose parts are here."""


@dataclass(frozen=True)
class Answer:
    """Bytes start..end of a file of `total`, to be read from the response."""

    response: urllib3.BaseHTTPResponse
    start: int
    end: int
    total: int
    etag: str
    """Names these very bytes; empty: the server does not say."""

    @property
    def is_range(self) -> bool:
        return self.response.status == 206


def in_words(error: HTTPError) -> str:
    """What went wrong, without the names of classes and functions."""
    cause = cause_of(error)
    said: dict[type[Exception], str] = {
        NameResolutionError: "the host is not found (is this machine online, or does it need a proxy, HTTPS_PROXY?)",
        ReadTimeoutError: f"nothing came for {_READ_S} s",
        ProxyError: "the proxy that the environment names does not answer",
        SSLError: f"its certificate is not accepted ({cause})",
        NewConnectionError: f"no connection ({str(cause).rpartition('] ')[2].rstrip(')')})",
        ConnectTimeoutError: f"no connection within {_CONNECT_S} s",  # the one before is of this kind too
    }
    return next((words for kind, words in said.items() if isinstance(cause, kind)), str(cause))


def cause_of(error: HTTPError) -> Exception:
    """What an error that only counts attempts is about."""
    return error.reason if isinstance(error, MaxRetryError) and error.reason else error


def pool(address: str, connections: int) -> urllib3.PoolManager:
    """Connections, through the proxy that the environment names for this address, if any."""
    parts = urlsplit(address)
    proxy = urllib.request.getproxies().get(parts.scheme)
    options = {"timeout": _TIMEOUT, "retries": _RETRY, "maxsize": connections}
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        return urllib3.ProxyManager(proxy, **options)  # type: ignore[arg-type]
    return urllib3.PoolManager(**options)  # type: ignore[arg-type]


def ask(
    connections: urllib3.PoolManager, asset: Asset, address: str, span: tuple[int, int] | None, etag: str
) -> Answer:
    """Ask for a span of the file, all of it if None; etag: only if it is still the file of that name.

    A span that ends with 0 goes to the file's end. A server may answer with the whole file all the same.
    Raises HTTPError where another try may help, else AddressError.
    """
    headers = {"User-Agent": "inference-loadgen", "Accept-Encoding": "identity", **_token(asset, address)}
    if span:
        headers["Range"] = f"bytes={span[0]}-{span[1] - 1 if span[1] else ''}"
        headers |= {"If-Range": etag} if etag else {}
    response = connections.request("GET", address, headers=headers, preload_content=False)
    try:
        start, end, total = _span(asset, address, response)
    except BaseException:
        response.close()
        raise
    said = response.headers.get("ETag", "")
    return Answer(response, start, end, total, "" if said.startswith("W/") else said)


def _token(asset: Asset, address: str) -> dict[str, str]:
    """For the official address and others of its host only; urllib3 removes it when a redirect leads elsewhere."""
    token = os.environ.get(asset.token, "") if asset.token else ""
    is_home = urlsplit(address)[:2] == urlsplit(asset.address)[:2]
    return {"Authorization": f"Bearer {token}"} if token and is_home else {}


def _span(asset: Asset, address: str, response: urllib3.BaseHTTPResponse) -> tuple[int, int, int]:
    """(first byte of this answer, the one after its last, bytes of the whole file), from status and headers."""
    status, headers = response.status, response.headers
    said = f"the server answered {status} {response.reason}"
    if status == 206:
        parts = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("Content-Range", ""))
        if not parts:
            raise OtherRange(f"{said} without naming a range")
        start, end, total = int(parts[1]), int(parts[2]) + 1, int(parts[3])
    elif status == 200:
        start, end = 0, int(headers.get("Content-Length", asset.bytes))
        total = end
    elif status == 416:
        raise OtherRange(said)
    elif status == 429 or status >= 500:
        raise Busy(said, _wait_s(headers.get("Retry-After", "")))
    else:
        raise AddressError(refusal(asset, address, said + (_access(asset) if status in (401, 403) else "")))
    if asset.bytes and total != asset.bytes:
        raise AddressError(
            refusal(asset, address, f"the file there has {total:,} bytes, the official one {asset.bytes:,}")
        )
    if not total:
        raise AddressError(refusal(asset, address, "the length of the file is not known, so a cut would go unnoticed"))
    return start, end, total


def _wait_s(said: str) -> float:
    """Retry-After in seconds or as a date; 0: the server does not say."""
    try:
        return max(0.0, float(_RETRY.parse_retry_after(said))) if said else 0.0
    except InvalidHeader:
        return 0.0


def _access(asset: Asset) -> str:
    """What the token has to do with a refusal."""
    if not asset.token:
        return ""
    return f"; {asset.token} is set, but not accepted" if os.environ.get(asset.token) else f"; {asset.token} is not set"


def refusal(asset: Asset, address: str, why: str) -> str:
    """The message for who wanted the file: why not from there, and what to do."""
    steps = [asset.gate] if asset.gate else []
    steps += [f"set {asset.token} to your access token"] if asset.token else []
    first = f"First: {', then '.join(steps)}. " if steps else ""
    return f"{address}: {why}. {first}Or get {asset.path} by hand and give its folder by --from"
