"""Pixels equal those of the official steps to the bit, whatever the file; what is no image says so."""

from __future__ import annotations

import io
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bench_resnet50.batch import Batch, check_variant, normalised
from bench_resnet50.preprocess import crop
from loadgen.contracts import BackendOptions, InputError

Draw = Callable[[int, int], npt.NDArray[np.uint8]]
MADE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("make_golden.py"))))
GOLDEN = json.loads(MADE.FILE.read_text())  # of torchvision itself


def official(path: Path, size: int = 224) -> npt.NDArray[np.float32]:
    """The steps of the reference's TensorFlow variant, in its order and its roundings."""
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
    height, width, _ = image.shape
    short = int(100.0 * size / 87.5)
    w, h = (short, int(short * height / width)) if height > width else (int(short * width / height), short)
    image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    left, right, top, bottom = (int(v / 2) for v in (w - size, w + size, h - size, h + size))
    values = np.asarray(image[top:bottom, left:right], np.float32)
    return values - np.array([123.68, 116.78, 103.94], np.float32)


@pytest.mark.parametrize("shape", MADE.SHAPES, ids=str)
def test_equals_the_official_steps_to_the_bit(shape: tuple[int, int], tmp_path: Path) -> None:
    assert np.array_equal(prepared(shape, "tf", tmp_path / "image.png"), official(tmp_path / "image.png"))


@pytest.mark.parametrize("shape", MADE.SHAPES, ids=str)
def test_equals_torchvision_to_the_bit(shape: tuple[int, int], tmp_path: Path) -> None:
    assert MADE.digest(prepared(shape, "torch", tmp_path / "image.png")) == GOLDEN[str(shape)]


def prepared(shape: tuple[int, int], variant: str, path: Path) -> Any:
    """What a model reads of `make_golden.picture(*shape)`, written as a file that loses nothing."""
    Image.fromarray(MADE.picture(*shape)).save(path)
    values = normalised(Batch(crop(path.read_bytes(), 224, variant)[None], variant))
    assert (values.shape, values.dtype) == ((1, 224, 224, 3), np.float32)
    return values[0]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(("quality", "progressive"), [(95, False), (60, True), (100, False)])
def test_jpeg_is_decoded_as_the_reference_does(
    mode: str, quality: int, progressive: bool, noise: Draw, tmp_path: Path
) -> None:
    path = tmp_path / "0.JPEG"
    Image.fromarray(noise(375, 500)).convert(mode).save(path, quality=quality, progressive=progressive)
    assert np.array_equal(normalised(Batch(crop(path.read_bytes(), 224, "tf")[None]))[0], official(path))


def test_variants_differ(noise: Draw) -> None:
    data = encoded(Image.fromarray(noise(375, 500)))
    assert not np.array_equal(crop(data, 224, "tf"), crop(data, 224, "torch"))


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind, quality=100)
    return file.getvalue()


def test_grey_and_cmyk_become_three_colours(noise: Draw) -> None:
    picture = Image.fromarray(noise(300, 280))
    grey = crop(encoded(picture.convert("L")), 224, "tf")
    assert grey.shape == (224, 224, 3)
    assert np.array_equal(grey[..., 0], grey[..., 2])
    cmyk, rgb = (crop(encoded(picture.convert(mode)), 224, "tf").astype(int) for mode in ("CMYK", "RGB"))
    assert cmyk.shape == (224, 224, 3)
    assert np.abs(cmyk - rgb).mean() < 12, "neither inverted nor with channels exchanged"


def test_a_single_pixel_fills_the_image() -> None:
    image = crop(encoded(Image.new("RGB", (1, 1), (200, 10, 90)), "PNG"), 224, "tf")
    assert np.array_equal(image, np.broadcast_to(np.array([200, 10, 90], np.uint8), (224, 224, 3)))


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.98])
def test_a_cut_file_is_refused(keep: float, noise: Draw) -> None:
    data = encoded(Image.fromarray(noise(375, 500)))
    with pytest.raises(ValueError, match=r"cut short|not an image"):
        crop(data[: int(keep * len(data))], 224, "tf")


@pytest.mark.parametrize("stray", [bytes(1000), b"\xff\xda stray", b"\xff\xd8\xff\xe1\xff\xff", b"\xff"])
def test_what_follows_a_whole_file_does_not_matter(stray: bytes, noise: Draw) -> None:
    data = encoded(Image.fromarray(noise(375, 500)))
    assert np.array_equal(crop(data + stray, 224, "tf"), crop(data, 224, "tf"))


def test_a_thumbnail_is_not_the_end(noise: Draw) -> None:
    picture = Image.fromarray(noise(375, 500))
    data, small = encoded(picture), encoded(picture.resize((40, 30)))
    segment = b"\xff\xe1" + (2 + len(small)).to_bytes(2) + small
    data = data[:2] + segment + data[2:]
    assert crop(data, 224, "tf").shape == (224, 224, 3)
    with pytest.raises(ValueError, match="cut short"):
        crop(data[:-2], 224, "tf")
    with pytest.raises(ValueError, match=r"cut short|not an image"):
        crop(data[: len(segment) // 2], 224, "tf")


@pytest.mark.parametrize("restarts", [0, 4])
@pytest.mark.parametrize("progressive", [0, 1])
def test_every_kind_of_jpeg_is_seen_to_be_whole(restarts: int, progressive: int, noise: Draw) -> None:
    options = [cv2.IMWRITE_JPEG_RST_INTERVAL, restarts, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpg", noise(375, 500), options)[1].tobytes()
    assert crop(data, 224, "tf").shape == (224, 224, 3)
    with pytest.raises(ValueError, match="cut short"):
        crop(data[:-2], 224, "tf")


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"text" * 50])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an image|cut short"):
        crop(data, 224, "tf")


def test_a_very_long_image_is_resized_as_the_reference_does(noise: Draw, tmp_path: Path) -> None:
    path = tmp_path / "0.JPEG"
    Image.fromarray(noise(6, 1024)).save(path)
    assert np.array_equal(normalised(Batch(crop(path.read_bytes(), 224, "tf")[None]))[0], official(path))
    assert crop(path.read_bytes(), 224, "torch").shape == (224, 224, 3)


def test_an_image_too_long_to_resize_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 x 65000 pixels are too elongated: resized they would take 12.8 GB"):
        crop(encoded(Image.new("RGB", (1, 65_000)), "PNG"), 224, "tf")


def test_weights_of_the_other_variant_are_refused() -> None:
    with pytest.raises(InputError, match="those of the profile full: use --profile torchvision"):
        check_variant(BackendOptions(Path(), extra={"variant": "tf"}), "torch")
    check_variant(BackendOptions(Path(), extra={"variant": "torch"}), "torch")
    check_variant(BackendOptions(Path()), "torch")
