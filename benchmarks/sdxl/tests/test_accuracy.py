"""Scores of an accuracy log: what is refused, what is written, how much memory it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from bench_sdxl.accuracy import REVIEWED, reviewed, score
from bench_sdxl.dataset import Dataset
from bench_sdxl.postprocess import decode, encode
from loadgen.contracts import CONTACT_SHEET, Entry, InputError, Scoring
from loadgen.rules import load_round

from .conftest import Images, Scored


def test_an_answer_is_the_image_in_bytes() -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 1024, 1024, 3), np.uint8)
    answers = encode(images, np.array([4, 1, 2]), None)  # type: ignore[arg-type]
    assert np.diff(np.asarray(answers.offsets)).tolist() == [3_145_728] * 3
    data = np.asarray(answers.data).tobytes()
    for row, image in enumerate(images):
        np.testing.assert_array_equal(decode(data[answers.offsets[row] : answers.offsets[row + 1]]), image)


@pytest.mark.parametrize("data", [b"", b"xx", b"x" * 3_145_727])
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(data)} bytes are not a square image"):
        decode(data)


@pytest.mark.parametrize(
    ("data", "fault"), [(b"", "sample 5: 0 bytes"), (bytes(48), "sample 5: an image of 4 x 4 pixels, 32 x 32 expected")]
)
def test_a_wrong_answer_names_its_sample(data: bytes, fault: str, mini: Path, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=fault):
        score([Entry(0, bytes(3072)), Entry(5, data)], dataset, Scoring(mini))


def test_the_order_of_answers_does_not_matter(mini: Path, dataset: Dataset, images: Images, scored: Scored) -> None:
    order = np.random.default_rng(1).permutation(len(images)).tolist()
    values = score((Entry(i, images[i].tobytes()) for i in order), dataset, Scoring(mini))
    for name, value in scored(images).items():
        assert values[name] == pytest.approx(value, rel=1e-4)


def test_reviewed_images_are_the_answers(mini: Path, dataset: Dataset, images: Images, tmp_path: Path) -> None:
    entries = (Entry(i, image.tobytes()) for i, image in enumerate(images))
    score(entries, dataset, Scoring(mini, output=tmp_path))
    for line in (tmp_path / "images" / "captions.txt").read_text().splitlines():
        index, caption = line.split("  ")
        assert caption == dataset.captions[int(index)]
        with Picture.open(tmp_path / "images" / f"{index}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), images[int(index)])


def test_a_sheet_shows_them_for_the_report(mini: Path, dataset: Dataset, images: Images, tmp_path: Path) -> None:
    score((Entry(i, image.tobytes()) for i, image in enumerate(images)), dataset, Scoring(mini, output=tmp_path))
    first, second = list(reviewed(dataset.total_count))[:2]
    with Picture.open(tmp_path / CONTACT_SHEET) as sheet:
        assert sheet.size == (990, 506)
        for index, left in ((first, 0), (second, 200)):
            shown = np.asarray(sheet.crop((left, 0, left + 190, 190)).resize((8, 8)), int)
            expected = np.asarray(Picture.fromarray(images[index]).resize((8, 8)), int)
            assert np.abs(shown - expected).max() < 20
        words = np.asarray(sheet.crop((0, 190, 190, 248)))
        assert words.min() < 100, "the caption"


def test_each_round_has_its_own_images(mini: Path, dataset: Dataset, images: Images, tmp_path: Path) -> None:
    entries = (Entry(index, images[index].tobytes()) for index in range(len(images)))
    score(entries, dataset, Scoring(mini, output=tmp_path, reviewed=(7, 150)))
    assert sorted(file.name for file in tmp_path.glob("images/*")) == ["150.png", "7.png", "captions.txt"]


def test_the_official_ten_are_reviewed() -> None:
    assert reviewed(5_000, load_round("v5.1").model("stable-diffusion-xl").images)[:2] == (2747, 2235)
    assert reviewed(5_000) == REVIEWED
    assert len(set(REVIEWED)) == len(reviewed(200)) == 10
    assert max(reviewed(200)) < 200


def test_a_log_of_full_size_images_fits_in_little_memory() -> None:
    """96 answers have 302 MB, 604 MB as the log writes them; 256 MB of them may wait in memory."""
    script = Path(__file__).parents[1] / "speed" / "memory.py"
    said = subprocess.run([sys.executable, str(script), "96"], capture_output=True, text=True, check=True).stdout
    words = said.split()
    peak = dict(zip(words[::3], map(float, words[1::3]), strict=True))
    assert peak["answers"] == 302
    assert peak["run"] < 400
    assert peak["scoring"] < 500
