"""The `fetch` command: shows the official files, checks those that are there, copies or downloads the others."""

from __future__ import annotations

import contextlib
import glob
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from loadgen.contracts import InputError
from loadgen.harness.assets import cache
from loadgen.harness.assets.asset import Asset, check_space, copy, fault, substitute
from loadgen.harness.assets.download import download
from loadgen.harness.assets.published import expanded
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.files import locked
from loadgen.harness.machine import needs
from loadgen.harness.machine.needs import to_fetch
from loadgen.harness.plan import Plan, Request, resolve
from loadgen.harness.report import screen

_UNCHECKED = "present (no checksum is known)"


def execute(plan: Plan, source: Path | None, check: bool) -> int:
    """Returns 0 when every file is there and right. Raises InputError that names those that are not."""
    folder, out = plan.folder, screen.console(plan.request.quiet)
    _say(out, f"{plan.benchmark.title}: official files, in {folder}")
    assets = expanded(needs.assets(plan), folder, may_ask=source is None and not check)
    others = {asset: substitute(asset, folder) for asset in assets}
    faults = {asset: "" if others[asset] else fault(asset, folder / asset.path) for asset in assets}
    for asset in assets:
        for line in describe(asset, faults[asset], others[asset]):
            _say(out, line)
    wanted = [asset for asset in assets if faults[asset]]
    if wanted and check:
        raise InputError(f"{len(wanted)} of {len(assets)} files are missing or wrong: run fetch without --check")
    if wanted:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, lambda: _say(out, f"another process is fetching into {folder}: waiting for it")):
            _get(wanted, folder, source, out)
    _say(out, f"all {len(assets)} files are there")
    return 0


def official(benchmark: Benchmark, request: Request) -> Plan:
    """The plan for the profile asked for, else the first that has official files. Raises InputError for one without."""
    offers = [name for name, profile in benchmark.profiles.items() if profile.assets]
    if not offers or request.profile not in ("", *offers):
        asked = f"the {request.profile} profile" if request.profile else benchmark.name
        raise InputError(f"{asked} has no official files to fetch: {', '.join(offers) or 'no profile'} has")
    return resolve(benchmark, replace(request, profile=request.profile or offers[0]))


def describe(asset: Asset, wrong: str, other: str = "") -> list[str]:
    """What a person wants to know of one file, and whether it is there. other: what is there in its place."""
    size = f"{asset.bytes / 1e6:,.1f} MB" if asset.bytes else "size not known"
    state = wrong or ("present, checked" if asset.has_checksum else _UNCHECKED)
    state = f"not needed, {other} is there" if other else state
    lines = [f"  {asset.path}: {state}", f"    {size}, {asset.licence}"]
    lines += [f"    {asset.address}"] if asset.address else []
    lines += [f"    listed in {asset.listing}.md5"] if asset.listing else []
    lines += [f"    or {mirror}" for mirror in asset.mirrors]
    lines += [f"    first: {asset.gate}"] if asset.gate else []
    is_set = "set" if os.environ.get(asset.token) else "not set"
    return lines + ([f"    access token: the variable {asset.token}, which is {is_set}"] if asset.token else [])


def _get(wanted: Sequence[Asset], folder: Path, source: Path | None, out: Console) -> None:
    new = [asset for asset in wanted if not _is_kept(asset)]
    check_space(folder, sum(to_fetch(asset, folder) for asset in new))
    failed: list[str] = []
    for asset in wanted:
        try:
            _get_one(asset, folder, source, out)
        except InputError as error:  # the others may be there
            _say(out, f"{asset.path}: {error}")
            failed.append(f"{asset.path}: {error}".replace("\n", "\n    "))
    if len(failed) == 1:
        raise InputError(failed[0])
    if failed:
        raise InputError(f"{len(failed)} of {len(wanted)} files could not be got:\n  " + "\n  ".join(failed))


def _get_one(asset: Asset, folder: Path, source: Path | None, out: Console) -> None:
    target = folder / asset.path
    if not fault(asset, target):
        return  # another process got it meanwhile
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f"{glob.escape(target.name)}.*.part"):  # by a process killed while it copied
        left.unlink()
    began = time.monotonic()
    how = _obtain(asset, folder, source, out)
    took = time.monotonic() - began
    _say(out, f"{asset.path}: {target.stat().st_size / 1e6:,.1f} MB {how} in {took:.1f} s")


def _is_kept(asset: Asset) -> bool:
    kept = cache.blob(asset)
    return kept is not None and kept.is_file()


def _check_address(asset: Asset) -> None:
    if not asset.address:
        raise InputError(f"{asset.path} has no address to download it from: {asset.gate}, then use --from FOLDER")


def _obtain(asset: Asset, folder: Path, source: Path | None, out: Console) -> str:
    """Get one file, and keep it for other benchmarks. Returns in words how it came."""
    target = folder / asset.path
    with _alone(asset, out):
        if source is None and cache.take(asset, target):
            return f"taken from {cache.blob(asset)}"
        if source is None:
            _check_address(asset)
            with screen.transferring(target.name, out) as progress:
                download(asset, folder, progress)
        else:
            copy(asset, source, folder)
        if why := cache.keep(asset, target):
            _say(out, f"{asset.path} is not kept for other benchmarks: {why}")
    return "downloaded" if source is None else "copied"


def _alone(asset: Asset, out: Console) -> contextlib.AbstractContextManager[None]:
    """Where files are shared only one process gets one, into whatever folder: others wait and take it then."""
    kept = cache.blob(asset)
    if kept is None:
        return contextlib.nullcontext()
    return locked(
        kept.with_suffix(".lock"), lambda: _say(out, f"another process is fetching {asset.path}: waiting for it")
    )


def _say(out: Console, line: str) -> None:
    out.print(line, soft_wrap=True, markup=False)
