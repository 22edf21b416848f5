"""Gets OpenImages' validation images: `python -m bench_retinanet.images FOLDER/data`.

As many as the annotations in the folder name, 24,781 officially (about 7 GB), from the public bucket of OpenImages to
`validation/data/`. Those that are there stay, so that a second call goes on where the first one was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from bench_retinanet.annotations import Picture, read_annotations
from bench_retinanet.official import ANNOTATIONS, ANNOTATIONS_ARCHIVE, IMAGE_FOLDERS
from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset
from loadgen.harness.assets.download import download
from loadgen.harness.assets.transfer import Way

BUCKET = "https://open-images-dataset.s3.amazonaws.com/validation"
_CLASSES = 264
_ONE = Way(connections=1)
_TELL_S = 10.0


def fetch_images(data: Path, pictures: Sequence[Picture], address: str = BUCKET, workers: int = 16) -> int:
    """Get those that are missing, and return how many these were.

    Raises InputError that names the first of those that could not be got, when all others are there."""
    wanted = [picture for picture in pictures if not (data / IMAGE_FOLDERS[0] / picture.file_name).is_file()]
    refused: list[InputError] = []
    told = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(_fetch, data, picture.file_name, address) for picture in wanted]
        for number, done in enumerate(as_completed(running), 1):
            error = done.exception()
            if isinstance(error, InputError):
                refused.append(error)
            elif error is not None:
                raise error
            if time.monotonic() - told > _TELL_S or number == len(wanted):
                told = time.monotonic()
                print(f"{number:,} of {len(wanted):,} images", file=sys.stderr, flush=True)
    if refused:
        why = str(refused[0]).partition(". ")[0]  # then follows advice for another command, fetch
        raise InputError(
            f"{len(refused):,} of {len(wanted):,} images are still missing: call again, or put them in "
            f"{data / IMAGE_FOLDERS[0]}. {why}"
        )
    return len(wanted)


def _fetch(data: Path, name: str, address: str) -> None:
    path = f"{IMAGE_FOLDERS[0]}/{name}"
    asset = Asset(path=path, address=f"{address}/{name}", licence="CC BY 2.0")
    download(asset, data, lambda there, whole: None, _ONE)


def main(arguments: Sequence[str] | None = None) -> int:
    """As the words of a command line say; the exit code."""
    parser = argparse.ArgumentParser(prog="images", description=__doc__)
    parser.add_argument("folder", type=Path, help=f"holds {ANNOTATIONS}, or {ANNOTATIONS_ARCHIVE}")
    parser.add_argument("--workers", type=int, default=16, help="images that are fetched at the same time")
    args = parser.parse_args(arguments)
    try:
        if (args.folder / ANNOTATIONS_ARCHIVE).is_file():
            from bench_retinanet.assets import unpack_annotations

            unpack_annotations(args.folder)
        pictures = read_annotations(args.folder / ANNOTATIONS, _CLASSES).pictures
        got = fetch_images(args.folder, pictures, workers=args.workers)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"all {len(pictures):,} images are there, {got:,} of them new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
