"""The `fetch` command: shows the official files, checks those that are there, copies or downloads the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from loadgen.contracts import InputError
from loadgen.harness import display
from loadgen.harness.assets import Asset, check_space, copy, fault, only_one, part_of
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.download import download
from loadgen.harness.session import Request, choose, data_folder, import_name

_UNCHECKED = "present (no checksum is known)"


def execute(benchmark: Benchmark, request: Request, source: Path | None, check: bool) -> int:
    """Returns 0 when every file is there and right. Raises InputError that names the first that is not."""
    name, assets = official(benchmark, request)
    folder = data_folder(benchmark, name, request.data)
    out = display.console(request.quiet)
    out.print(f"{benchmark.title}: official files, in {folder}", soft_wrap=True, markup=False)
    faults = {asset: fault(asset, folder / asset.path) for asset in assets}
    for asset in assets:
        for line in describe(asset, faults[asset]):
            out.print(line, soft_wrap=True, markup=False)
    wanted = [asset for asset in assets if faults[asset]]
    if wanted and check:
        raise InputError(f"{len(wanted)} of {len(assets)} files are not right: run fetch without --check")
    with only_one(folder):
        _get(wanted, folder, source, out)
    out.print(f"all {len(assets)} files are there", markup=False)
    return 0


def official(benchmark: Benchmark, request: Request) -> tuple[str, list[Asset]]:
    """(profile, its files that the backend needs): of the profile asked for, else the first that has files."""
    offers = [name for name, profile in benchmark.profiles.items() if profile.assets]
    if not offers or request.profile not in ("", *offers):
        asked = f"the {request.profile} profile" if request.profile else benchmark.name
        raise InputError(f"{asked} has no official files to fetch: {', '.join(offers) or 'no profile'} has")
    name = request.profile or offers[0]
    _, profile, backend, _ = choose(benchmark, request)
    profile = benchmark.profiles[name]
    listed: Sequence[Asset] = import_name(profile.assets, "the list of files", benchmark)
    return name, [asset for asset in listed if asset.is_needed(backend, request.dtype)]


def describe(asset: Asset, wrong: str) -> list[str]:
    """What a person wants to know of one file, and whether it is there."""
    size = f"{asset.bytes / 1e6:,.1f} MB" if asset.bytes else "size not known"
    state = wrong or ("present, checked" if asset.has_checksum else _UNCHECKED)
    lines = [f"  {asset.path}: {state}", f"    {size}, {asset.licence}"]
    lines += [f"    {asset.address}"] if asset.address else []
    return lines + ([f"    first: {asset.gate}"] if asset.gate else [])


def _get(wanted: Sequence[Asset], folder: Path, source: Path | None, out: Console) -> None:
    known = sum(max(0, asset.bytes - _size(part_of(folder / asset.path))) for asset in wanted)
    check_space(folder, known)
    for asset in wanted:
        if source is None and not asset.address:
            raise InputError(f"{asset.path} has no address to download it from: {asset.gate}, then use --from FOLDER")
    for asset in wanted:
        began = time.monotonic()
        if source is not None:
            copy(asset, source, folder)
        else:
            _download(asset, folder, out)
        size = (folder / asset.path).stat().st_size
        out.print(f"{asset.path}: {size / 1e6:,.1f} MB in {time.monotonic() - began:.1f} s", markup=False)


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _download(asset: Asset, folder: Path, out: Console) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task(Path(asset.path).name, total=asset.bytes or None)
        download(asset, folder, lambda there, whole: bar.update(task, completed=there, total=whole or None))
