"""Downloads one official file: resumes what a cut left, and gives the file its name only when it is right."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from loadgen.contracts import InputError
from loadgen.harness.assets import Asset, adopt, check_space, part_of

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes of the whole; 0: not known."""

_CHUNK = 1 << 20  # bytes
_ATTEMPTS = 5  # in a row, none of which got further
_TIMEOUT = urllib3.Timeout(connect=20, read=60)
_RETRY = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=10)  # repeating is our own loop's


def download(asset: Asset, folder: Path, progress: Progress, pause_s: float = 2.0) -> None:
    """Fetch the asset into `folder`, from where an earlier call stopped if a checksum can tell that the parts fit.

    Raises InputError if the server has no such file, not this one, or cannot be reached; what came of
    it by then is kept as a `.part` file.
    """
    target = folder / asset.path
    part = part_of(target)
    part.parent.mkdir(parents=True, exist_ok=True)
    left = _ATTEMPTS
    with _pool(asset.address) as pool:
        while True:
            before = _size(part)
            try:
                _get(pool, asset, part, progress)
                break
            except urllib3.exceptions.HTTPError as error:
                left = _ATTEMPTS if _size(part) > before else left - 1
                if not left:
                    raise InputError(_unreachable(asset, part, error)) from error
                time.sleep(pause_s)
    adopt(asset, part, target, asset.address)


def _pool(address: str) -> urllib3.PoolManager:
    """Connections, through the proxy that the environment names for this address, if any."""
    parts = urlsplit(address)
    proxy = urllib.request.getproxies().get(parts.scheme)
    options = {"timeout": _TIMEOUT, "retries": _RETRY, "headers": {"User-Agent": "inference-loadgen"}}
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        return urllib3.ProxyManager(proxy, **options)  # type: ignore[arg-type]
    return urllib3.PoolManager(**options)  # type: ignore[arg-type]


def _get(pool: urllib3.PoolManager, asset: Asset, part: Path, progress: Progress) -> None:
    """One request for what is missing. Raises urllib3's HTTPError where another try may help, else InputError."""
    have = _size(part) if asset.has_checksum else 0  # without one nobody could tell that two halves fit
    if asset.bytes and have >= asset.bytes:
        return  # nothing is missing; `adopt` says whether it is right
    wanted = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    headers = {**pool.headers, **wanted}
    response = pool.request("GET", asset.address, headers=headers, preload_content=False)
    try:
        start, total = _span(asset, response, have, part)
        if start == total:
            return
        check_space(part.parent, (total or asset.bytes) - start)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in response.stream(_CHUNK, decode_content=False):
                progress(start := start + file.write(chunk), total)
    finally:
        response.close()
    if start != total:
        raise urllib3.exceptions.ProtocolError(f"the connection ended after {start:,} of {total:,} bytes")


def _span(asset: Asset, response: urllib3.BaseHTTPResponse, have: int, part: Path) -> tuple[int, int]:
    """(where this answer's bytes begin, bytes of the whole file), from status and headers."""
    status, headers = response.status, response.headers
    if status in (206, 416):
        said = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", headers.get("Content-Range", ""))
        start, total = (int(said[1] or said[2]), int(said[2])) if said else (-1, -1)
        if start != have:  # not what was asked for: begin anew
            part.unlink(missing_ok=True)
            raise urllib3.exceptions.ProtocolError(f"asked from byte {have:,}, the server answered {status}")
    elif status == 200:
        start, total = 0, int(headers.get("Content-Length", asset.bytes))
    elif status == 429 or status >= 500:
        raise urllib3.exceptions.ProtocolError(f"the server answered {status} {response.reason}")
    else:
        raise InputError(_refused(asset, f"the server answered {status} {response.reason}"))
    if asset.bytes and total != asset.bytes:
        raise InputError(_refused(asset, f"the file there has {total:,} bytes, the official one {asset.bytes:,}"))
    if not total:
        raise InputError(_refused(asset, "nobody says how long the file is, so that a cut could not be seen"))
    return start, total


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _refused(asset: Asset, why: str) -> str:
    first = f"First: {asset.gate}. " if asset.gate else ""
    return f"{asset.address}: {why}. {first}Or get {asset.path} by hand and give its folder by --from"


def _unreachable(asset: Asset, part: Path, error: Exception) -> str:
    kept = f"; {_size(part):,} bytes are kept in {part}" if asset.has_checksum and part.is_file() else ""
    return f"{asset.address}: {error}{kept}. Run fetch again, or get it by hand and give its folder by --from"
