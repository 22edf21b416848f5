"""CLIP score and FID by the rules of the official script, an image at a time: the log of 5,000 has 31 GB.

CLIP score: 100 times the mean cosine between an image and its caption, in OpenAI's ViT-B/32. FID: the distance of the
images' features from those of COCO's photographs, which `val2014.npz` holds. The reviewed images are written too, and a
sheet of them for the report.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from bench_sdxl.dataset import Dataset
from bench_sdxl.official import CLIP, INCEPTION
from bench_sdxl.postprocess import Image, decode
from loadgen.contracts import CONTACT_SHEET, Entry, InputError, Scoring

REVIEWED = (4459, 4015, 2705, 1682, 4048, 4683, 3757, 1578, 3319, 95)
"""Samples whose images are kept where the round names none: those of v4.0 and v5.0."""
_AT_ONCE = 8
"""Images that are in memory together: 25 MB, and the features of as many."""
_TILE, _GAP, _WORDS, _ACROSS = 190, 10, 58, 5
"""Of the sheet: an image's side, what lies between two, a caption's height, all in pixels; and images in a row."""


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """`CLIP_SCORE` and `FID_SCORE`; writes `images/` and a sheet of them beside the log, if there is a place for them.

    Raises InputError that names a sample whose answer is no image, or the scorers' files that are missing.
    """
    check_scorers(at.folder / "model")
    from bench_sdxl.scorers.clip import read_clip
    from bench_sdxl.scorers.inception import read_inception
    from bench_sdxl.scorers.judge import Judge

    judge = Judge(
        read_clip(at.folder / "model" / CLIP, at.device),
        read_inception(at.folder / "model" / INCEPTION, at.device),
        dataset.tokenizers[0],
        dataset.statistics,
        dataset.feature_side,
    )
    review = None if at.output is None else Review(at.output / "images", dataset, at.reviewed)
    for batch in _batches(entries):
        images = [picture(entry, dataset.side) for entry in batch]
        judge.add(images, [dataset.captions[entry.index] for entry in batch])
        if review:
            for entry, image in zip(batch, images, strict=True):
                review.keep(entry.index, image)
    if review:
        review.sheet().save(review.folder.parent / CONTACT_SHEET, quality=85)
    return {"CLIP_SCORE": judge.clip_score, "FID_SCORE": judge.fid}


def check_scorers(model: Path) -> None:
    """Raise InputError that says which networks a score needs and what goes without them."""
    missing = [str(model / name) for name in (CLIP, INCEPTION) if not (model / name).is_file()]
    if missing:
        raise InputError(
            f"an accuracy test is scored by two networks, of which there is no {' and no '.join(missing)}: get them "
            "by the command fetch, then score the log by the command accuracy; performance tests need neither"
        )


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    running = iter(entries)
    while batch := list(itertools.islice(running, _AT_ONCE)):
        yield batch


def picture(entry: Entry, side: int) -> Image:
    """Of one answer. Raises InputError that names the sample if it has no `side` x `side` pixels."""
    try:
        image = decode(entry.data)
    except ValueError as error:
        raise InputError(f"sample {entry.index}: {error}; the log is damaged or of another benchmark") from error
    if len(image) != side:
        raise InputError(
            f"sample {entry.index}: an image of {len(image)} x {len(image)} pixels, {side} x {side} expected; "
            "score the log with the model that made it"
        )
    return image


class Review:
    """Writes the images that people look at, `<sample>.png`, and their captions, a line each."""

    def __init__(self, folder: Path, dataset: Dataset, named: tuple[int, ...] = ()) -> None:
        """named: by the round."""
        self.folder = folder
        self._wanted = reviewed(dataset.total_count, named or REVIEWED)
        self._captions = dataset.captions
        self._small: dict[int, Picture.Image] = {}
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{index}  {dataset.captions[index]}\n" for index in self._wanted]
        (folder / "captions.txt").write_text("".join(lines), encoding="utf-8")

    def keep(self, index: int, image: Image) -> None:
        """Write it if it is one of them."""
        if index in self._wanted:
            whole = Picture.fromarray(image)
            whole.save(self.folder / f"{index}.png")
            self._small[index] = whole.resize((_TILE, _TILE))

    def sheet(self) -> Picture.Image:
        """All of them, small, each over its sample and caption."""
        across, down = _TILE + _GAP, _TILE + _GAP + _WORDS
        rows = max(1, -(-len(self._small) // _ACROSS))
        made = Picture.new("RGB", (_ACROSS * across - _GAP, rows * down - _GAP), "white")
        draw, font = ImageDraw.Draw(made), ImageFont.load_default(12)
        for number, index in enumerate(index for index in self._wanted if index in self._small):
            place = number % _ACROSS * across, number // _ACROSS * down
            made.paste(self._small[index], place)
            lines = textwrap.wrap(f"{index}  {self._captions[index]}", 32, max_lines=3, placeholder=" ...")
            draw.text((place[0], place[1] + _TILE + 4), "\n".join(lines), "black", font)
        return made


def reviewed(count: int, named: tuple[int, ...] = REVIEWED) -> tuple[int, ...]:
    """Those that are named; of a set that is too small for them ten that are spread over it."""
    return named if count > max(named) else tuple(range(0, count, max(1, count // 10)))[:10]
