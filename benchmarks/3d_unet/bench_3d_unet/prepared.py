"""Preprocessed volumes in the reference's files, made once from KiTS19's and kept.

`case_XXXXX.pkl` holds [image, label], `preprocessed_files.pkl` the list of cases with their shapes and affines,
`nifti/case_XXXXX/` the same volumes for a person's eye. `checksums.json` is ours: of the arrays' bytes, because two
versions of NumPy pickle equal arrays to different bytes, and of what they were made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from bench_3d_unet import pickles
from bench_3d_unet.kits import IMAGING, SEGMENTATION, Affine, read_scan, write_nifti
from bench_3d_unet.official import COPIED, COPY
from bench_3d_unet.preprocess import SPACING, Volume, preprocess
from loadgen.contracts import InputError
from loadgen.harness.files import locked, whole_file
from loadgen.harness.standins.making import tell, writing
from loadgen.memory import available_bytes

INDEX, CHECKSUMS = "preprocessed_files.pkl", "checksums.json"
Facts: TypeAlias = "dict[str, Any]"
Made = TypeVar("Made")

_SMALL = 50_000_000  # bytes of files that this process reads sooner than others would start
_CASE_BYTES = 3_000_000_000  # of memory that the largest case takes


def prepare(raw: Path, folder: Path, cases: Sequence[str], window: int) -> None:
    """Preprocess into `folder` those cases of `raw` that are not there, or were made from other files.

    Without `raw` what the reference made is taken as it is. Says on stderr how far it is. Raises InputError that names
    missing cases, or the file that cannot be read.
    """
    if not raw.is_dir():
        return
    missing = [case for case in cases if not source(raw, case).is_dir()]
    if missing:
        raise InputError(
            f"{raw}: {len(missing)} of {len(cases)} cases are missing: {', '.join(missing)}. "
            "Get them by the command fetch, or put their folders there"
        )
    with writing(folder), locked(folder, partial(tell, f"waiting for {folder}, which another run makes")):
        known = _known(folder, window)
        made_from = {case: _stamps(source(raw, case)) for case in cases}
        _make(raw, folder, made_from, known, window)


def source(raw: Path, case: str) -> Path:
    """The folder of a case: case 400 is a copy of case 185, which need not be there."""
    own = raw / case
    return raw / COPIED if case == COPY and not own.is_dir() else own


def _stamps(folder: Path) -> list[list[int]]:
    """Size and time of change of a case's two files. Raises InputError for one that is missing."""
    files = [folder / IMAGING, folder / SEGMENTATION]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file. Get it by the command fetch, or put KiTS19's there")
    return [[file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _known(folder: Path, window: int) -> dict[str, Facts]:
    """Case -> what `checksums.json` says of it; nothing, if that is of another window or damaged: it is made again."""
    try:
        document = json.loads((folder / CHECKSUMS).read_bytes())
        index = pickles.read(folder / INDEX)["cases"]
        cases = document["cases"] if document["window"] == window else {}
        return {name: facts for name, facts in cases.items() if name in index and (folder / f"{name}.pkl").is_file()}
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return {}


def _make(raw: Path, folder: Path, made_from: dict[str, list[list[int]]], known: dict[str, Facts], window: int) -> None:
    """Those cases of `made_from` that are not `known` as made from that; changes `known`."""
    wanted = [case for case, stamps in made_from.items() if known.get(case, {}).get("made_from") != stamps]
    if COPY in wanted and source(raw, COPY).name == COPIED:
        tell(f"{COPY} is {COPIED} a second time, as in the reference")
    index = dict(pickles.read(folder / INDEX)["cases"]) if known else {}
    jobs = [(source(raw, case), folder, case, window) for case in wanted]
    loud = sum(stamp[0] for case in wanted for stamp in made_from[case]) > _SMALL
    began = time.monotonic()
    for number, (entry, sums) in enumerate(spread(_made, jobs, _CASE_BYTES if loud else 0), start=1):
        case = entry["case"]
        index[case], known[case] = entry, {**sums, "made_from": made_from[case]}
        write_index(folder, list(made_from), index, known, window)  # what is done stays done if the next one fails
        if loud:
            tell(f"preprocessed {case}: {number} of {len(wanted)}, {time.monotonic() - began:.0f} s")


def spread(make: Callable[..., Made], jobs: Sequence[tuple[Any, ...]], memory: int) -> Iterator[Made]:
    """What `make` gives for each job, in the order in which they are done, by as many processes as there are cores and
    room for. memory: bytes that a job takes; 0: they are small, and done here."""
    free = available_bytes()
    fitting = len(jobs) if free is None or not memory else free // memory
    count = min(os.cpu_count() or 1, len(jobs), fitting)
    if not memory or count < 2:
        yield from (make(*job) for job in jobs)
        return
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        running = [pool.submit(make, *job) for job in jobs]
        try:
            yield from (future.result() for future in as_completed(running))
        finally:
            pool.shutdown(cancel_futures=True)


def _made(raw: Path, folder: Path, case: str, window: int) -> tuple[Facts, Facts]:
    scan = read_scan(raw)
    volume = preprocess(scan.image, scan.label, scan.spacing, window)
    affine = respaced(scan.affine)
    (folder / "nifti" / case).mkdir(parents=True, exist_ok=True)
    write_nifti(folder / "nifti" / case / IMAGING, volume.image[0], affine)
    write_nifti(folder / "nifti" / case / SEGMENTATION, volume.label[0], affine)
    return write_volume(folder, case, volume, scan.affine, scan.spacing)


def write_volume(
    folder: Path, case: str, volume: Volume, affine: Affine, spacing: tuple[float, float, float]
) -> tuple[Facts, Facts]:
    """`case.pkl`; affine, spacing: before preprocessing. Returns its entry in the index and its checksums."""
    pickles.write(folder / f"{case}.pkl", list(volume))
    entry = {
        "original_affine": affine,
        "reshaped_affine": respaced(affine),
        "zoom_factor": np.array(spacing) / np.array(SPACING),
        "case": case,
        "image_shape": volume.image.shape,
    }
    return entry, checksums(volume)


def write_index(
    folder: Path, cases: Sequence[str], index: dict[str, Facts], known: dict[str, Facts], window: int
) -> None:
    """The two lists, of all cases so far. index, known: what `write_volume` returns, by case."""
    content = {"file_list": list(cases), "cases": {name: index[name] for name in cases if name in index}}
    pickles.write(folder / INDEX, content)
    with whole_file(folder / CHECKSUMS) as part:
        part.write_text(json.dumps({"window": window, "cases": known}, indent=1) + "\n")


def respaced(affine: Affine) -> Affine:
    """The affine with the spacing of preprocessed volumes; the place of the first voxel stays, as in the reference."""
    turned = np.sign(affine[:3, :3]) * np.array(SPACING)
    result = affine.copy()
    result[:3, :3] = turned
    return result


def checksums(volume: Volume) -> dict[str, str]:
    """`image` and `label` -> SHA-256 of the array's bytes."""
    return {name: hashlib.sha256(array).hexdigest() for name, array in volume._asdict().items()}


class Prepared:
    """A folder of preprocessed volumes, read case by case."""

    def __init__(self, folder: Path, cases: Sequence[str], window: int) -> None:
        """Raises InputError that names the index, or cases that are missing."""
        self.folder = folder
        index = pickles.read(folder / INDEX)
        entries = index.get("cases") if isinstance(index, dict) else None
        if not isinstance(entries, dict):
            raise InputError(f"{folder / INDEX}: is no list of preprocessed cases. {_ADVICE}")
        missing = [case for case in cases if case not in entries or not (folder / f"{case}.pkl").is_file()]
        if missing:
            raise InputError(f"{folder}: {len(missing)} cases are missing: {', '.join(missing)}. {_ADVICE}")
        self.shapes = {case: self._shape(case, entries[case], window) for case in cases}
        """[D, H, W] of each case."""
        self._sums = _known(folder, window)

    def _shape(self, case: str, entry: Any, window: int) -> tuple[int, int, int]:
        shape = entry.get("image_shape", ()) if isinstance(entry, dict) else ()
        sides = tuple(int(side) for side in shape[1:])
        if len(sides) != 3 or any(side < window or side % (window // 2) for side in sides):
            raise InputError(
                f"{self.folder / INDEX}: {case} has the shape {shape}, expected [1, D, H, W] of multiples of "
                f"{window // 2}, at least {window}. {_ADVICE}"
            )
        return sides[0], sides[1], sides[2]

    def volume(self, case: str) -> Volume:
        """Image and label. Raises InputError naming the file if they are not what the index or the checksums say."""
        path = self.folder / f"{case}.pkl"
        found = pickles.read(path)
        wanted = (1, *self.shapes[case])
        for array, kind in zip(found if isinstance(found, list) else [], (np.float32, np.uint8), strict=False):
            if not isinstance(array, np.ndarray) or array.dtype != kind or array.shape != wanted:
                break
        else:
            if isinstance(found, list) and len(found) == 2:
                return self._checked(path, case, Volume(*map(np.ascontiguousarray, found)))
        raise InputError(f"{path}: holds no float32 image and uint8 label of shape {list(wanted)}. {_ADVICE}")

    def _checked(self, path: Path, case: str, volume: Volume) -> Volume:
        known = self._sums.get(case)
        if known and any(known[name] != value for name, value in checksums(volume).items()):
            raise InputError(f"{path}: is not what was preprocessed: its checksum is another. {_ADVICE}")
        return volume


_ADVICE = "Remove the folder to have it made again from data/raw"
