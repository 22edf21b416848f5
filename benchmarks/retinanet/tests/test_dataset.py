"""Images and annotations: the reference's bytes, kept between runs, and what is said of files that are wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bench_retinanet import decoded
from bench_retinanet.annotations import is_crowd, read_annotations
from bench_retinanet.dataset import Batch, Dataset
from bench_retinanet.official import ANNOTATIONS, IMAGE_FOLDERS
from loadgen.contracts import InputError

Folder = Callable[..., Path]
Noise = Callable[[int, int], npt.NDArray[np.uint8]]
SIDE = 64


def reference(file: Path, side: int) -> npt.NDArray[np.float32]:
    """[3, side, side] by the official calls in the official order."""
    image = np.asarray(cv2.imread(str(file)), np.float32)
    image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    image = np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR))
    return np.asarray((image / 255.0).transpose(2, 0, 1), np.float32)


def opened(folder: Path) -> Dataset:
    return Dataset(folder, image=SIDE, classes=3)


def loaded(folder: Path) -> npt.NDArray[np.float32]:
    data = opened(folder)
    data.load(range(data.total_count))
    return data.gather(np.arange(data.total_count)).images


@pytest.mark.parametrize("shape", [(48, 100), (100, 48), (64, 64), (7, 9), (301, 200), (1, 1)])
def test_pixels_are_the_references_to_the_byte(shape: tuple[int, int], folder: Folder, noise: Noise) -> None:
    place = folder([noise(*shape)])
    images = loaded(place)
    assert images.dtype == np.float32
    expected = reference(place / "data" / IMAGE_FOLDERS[0] / "0.jpg", SIDE)
    assert images[0].tobytes() == np.ascontiguousarray(expected).tobytes()


def test_resizing_bytes_would_not_do(noise: Noise) -> None:
    image = noise(100, 48)
    narrow = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    wide = cv2.resize(image.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    assert np.abs(narrow - wide).max() > 0.3


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_all_colours_are_read_as_the_reference_does(mode: str, folder: Folder, noise: Noise) -> None:
    place = folder([noise(60, 80)])
    file = place / "data" / IMAGE_FOLDERS[0] / "0.jpg"
    Image.fromarray(noise(60, 80)).convert(mode).save(file, "JPEG", quality=80)
    images = loaded(place)
    assert images[0].tobytes() == np.ascontiguousarray(reference(file, SIDE)).tobytes()
    if mode == "L":
        assert (images[0][0] == images[0][2]).all()


def test_a_camera_that_was_turned_is_heeded_as_by_the_reference(folder: Folder, noise: Noise) -> None:
    """OpenCV turns an image as its EXIF data say, and the official sizes are those of what it gives."""
    place = folder([noise(60, 80)])
    file = place / "data" / IMAGE_FOLDERS[0] / "0.jpg"
    sideways = Image.Exif()
    sideways[0x0112] = 6
    Image.fromarray(noise(80, 60)).save(file, "JPEG", quality=80, exif=sideways)
    assert Image.open(file).size == (60, 80), "as stored"
    assert loaded(place)[0].tobytes() == np.ascontiguousarray(reference(file, SIDE)).tobytes()


def test_the_official_apps_folder_is_read_too(folder: Folder, noise: Noise) -> None:
    place = folder([noise(20, 30), noise(30, 20)])
    before = loaded(place)
    for number in range(2):
        (place / "data" / IMAGE_FOLDERS[0] / f"{number}.jpg").rename(place / "data" / f"{number}.jpg")
    assert (loaded(place) == before).all()


def test_images_are_decoded_once(folder: Folder, noise: Noise, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder([noise(40, 50), noise(50, 40), noise(30, 30)])
    before = loaded(place)
    calls: list[int] = []
    decode = decoded.decode
    monkeypatch.setattr(decoded, "decode", lambda data: calls.append(1) or decode(data))
    assert (loaded(place) == before).all()
    assert not calls
    file = place / "data" / IMAGE_FOLDERS[0] / "1.jpg"
    os.utime(file, ns=(1, 1))  # another file, as far as one can see
    assert (loaded(place) == before).all()
    assert len(calls) == 1
    kept = place / "data" / "decoded.bin"
    whole = bytearray(kept.read_bytes())
    whole[200] ^= 1  # of the first image's pixels
    kept.write_bytes(whole)
    assert (loaded(place) == before).all()
    assert len(calls) == 2


def test_decoded_images_of_another_list_are_not_taken(folder: Folder, noise: Noise) -> None:
    first, second = noise(40, 50), noise(40, 50)
    loaded(folder([first, second]))
    manifest = json.loads((folder([first, second]) / "data" / "decoded.manifest").read_text())
    assert manifest["images"] == 2
    place = folder([second])
    assert (loaded(place)[0] == reference(place / "data" / IMAGE_FOLDERS[0] / "0.jpg", SIDE)).all()


def test_decoded_bytes_take_a_third_of_what_is_read(folder: Folder, noise: Noise) -> None:
    place = folder([noise(96, 128)])
    loaded(place)
    assert (place / "data" / "decoded.bin").stat().st_size == 64 + 96 * 128 * 3


def test_data_that_cannot_be_written_beside_is_kept_elsewhere(
    folder: Folder, noise: Noise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder([noise(20, 20)])
    monkeypatch.setattr(decoded.os, "access", lambda *_: False)
    monkeypatch.setattr(decoded.tempfile, "gettempdir", lambda: str(tmp_path / "elsewhere"))
    assert loaded(place).shape == (1, 3, SIDE, SIDE)
    assert not (place / "data" / "decoded.bin").exists()
    assert len(list((tmp_path / "elsewhere").rglob("decoded.bin"))) == 1


def test_loading_adds_and_unloading_frees(folder: Folder, noise: Noise) -> None:
    data = opened(folder([noise(20, 20 + n) for n in range(5)]))
    data.load([0, 3])
    data.load([3, 4])
    batch = data.gather(np.array([4, 0]))
    assert (batch.images[1] == data.gather(np.array([0])).images[0]).all()
    data.unload([0, 3])
    data.unload([4])
    with pytest.raises(ValueError, match="sample 3 is not loaded"):
        data.gather(np.array([3]))
    assert data.costs(np.array([1, 2])).tolist() == [1, 1]


def test_as_many_images_are_loaded_as_fit_in_memory() -> None:
    data = Dataset.__new__(Dataset)
    data.files, data.image = [Path()] * 24_781, 800
    assert 64 < data.performance_count == 260
    data.files = [Path()] * 5
    assert data.performance_count == 5


def test_a_batch_reads_in_place_where_it_can() -> None:
    source = np.arange(5 * 3 * 2 * 2, dtype=np.float32).reshape(5, 3, 2, 2)
    assert np.shares_memory(Batch(source, np.array([1, 2, 3])).images, source)
    assert (Batch(source, np.array([3, 1])).images == source[[3, 1]]).all()
    assert len(Batch(source, np.array([3, 1]))) == 2
    assert len(Batch(source)) == 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "cut short, it has no end marker"),
        (lambda data: b"", "0 bytes are not an image"),
        (lambda data: b"nothing " * 50, "400 bytes are not an image"),
        (lambda data: cv2.imencode(".jpg", np.zeros((9, 8, 3), np.uint8))[1].tobytes(), "8 x 9 pixels, but the annot"),
    ],
)
def test_a_bad_image_is_named(damage: Any, message: str, folder: Folder, noise: Noise) -> None:
    place = folder([noise(30, 30), noise(40, 40)])
    file = place / "data" / IMAGE_FOLDERS[0] / "1.jpg"
    whole: Any = cv2.imencode(".jpg", noise(40, 40))[1]
    file.write_bytes(damage(bytes(whole)))
    with pytest.raises(InputError, match=f"1 of 2 images cannot be read: sample 1, .*1.jpg: .*{message}"):
        loaded(place)


def test_missing_images_are_named(folder: Folder, noise: Noise) -> None:
    place = folder([noise(9, 9) for _ in range(6)])
    for number in (1, 2, 3, 5):
        (place / "data" / IMAGE_FOLDERS[0] / f"{number}.jpg").unlink()
    with pytest.raises(InputError, match=r"4 of 6 images .*1.jpg \(sample 1\), .*\(sample 3\), \.\.\.") as caught:
        opened(place)
    assert "python -m bench_retinanet.images" in str(caught.value)


BOX = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
IMAGE = {"id": 1, "file_name": "0.jpg", "height": 5, "width": 5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "'images' is missing or empty"),
        ({"images": None}, "'images' is missing or empty"),
        ({"annotations": []}, "'annotations' is missing or empty"),
        ({"annotations": [3]}, "'annotations' holds something that is no JSON object"),
        ({"images": [IMAGE, IMAGE]}, "image id 1 is there twice"),
        ({"images": [IMAGE, {**IMAGE, "id": 2}]}, "file name '0.jpg' is there twice"),
        ({"images": [{**IMAGE, "height": 0}]}, "image 0, 0.jpg, is 5 x 0 pixels"),
        ({"images": [{**IMAGE, "width": 10**9}]}, "image 0, 0.jpg, is 1000000000 x 5 pixels"),
        ({"images": [{**IMAGE, "width": None}]}, "image 0 has width None, expected a whole number"),
        ({"images": [{**IMAGE, "file_name": "../0.jpg"}]}, "file_name '../0.jpg', expected a file below"),
        ({"annotations": [{**BOX, "image_id": 7}]}, "annotation 1 is of image 7, which is not in the file"),
        ({"annotations": [{**BOX, "category_id": 3}]}, "annotation 1 is of category 3, which is not in the file"),
        ({"annotations": [BOX, BOX]}, "annotation id 1 is there twice"),
        ({"annotations": [{**BOX, "bbox": [1, 1, 5]}]}, r"has bbox \[1, 1, 5\], expected left, top, width and height"),
        ({"annotations": [{**BOX, "bbox": [1, 1, -5, 5]}]}, "a width or height below 0"),
        ({"annotations": [{**BOX, "bbox": [1, 1, float("nan"), 5]}]}, "expected left, top, width and height"),
        ({"annotations": [{**BOX, "iscrowd": "no"}]}, "has iscrowd 'no', expected 0 or 1"),
        ({"categories": [{"id": 3, "name": "x"}]}, "category 3 is not one of the model's classes, 0 to 2"),
    ],
)
def test_wrong_annotations_are_named(changes: dict[str, Any], message: str, folder: Folder, noise: Noise) -> None:
    place = folder([noise(5, 5)], **changes)
    with pytest.raises(InputError, match=f"openimages-mlperf.json: .*{message}.*: put the official annotations there"):
        opened(place)


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"images": ', b"\xff\xfe\x00"])
def test_a_file_that_is_no_json_object_is_named(content: bytes, folder: Folder, noise: Noise) -> None:
    place = folder([noise(5, 5)])
    (place / "data" / ANNOTATIONS).write_bytes(content)
    with pytest.raises(InputError, match=r"openimages-mlperf\.json: (not JSON|holds no JSON object)"):
        opened(place)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"openimages-mlperf\.json: no such file: put the official annotations"):
        read_annotations(tmp_path / ANNOTATIONS, 264)


@pytest.mark.parametrize(
    ("value", "read"),
    [(0, 0), (1, 1), (0.0, 0), (1.0, 1), (None, 0), (float("nan"), 0), (True, 1), (False, 0), (-1, 1)],
)
def test_groups_are_read_whatever_wrote_them(value: Any, read: int, folder: Folder, noise: Noise) -> None:
    assert is_crowd(value, "it") == read
    place = folder([noise(5, 5)], annotations=[{**BOX, "iscrowd": value}])  # NaN as pandas writes it, without quotes
    (box,) = opened(place).annotations.boxes
    assert (box["iscrowd"], type(box["iscrowd"])) == (read, int)


def test_a_box_without_area_is_read_as_officially(folder: Folder, noise: Noise) -> None:
    place = folder([noise(5, 5)], annotations=[{**BOX, "bbox": [1, 1, 0, 5], "area": 0.0}])
    assert opened(place).annotations.boxes[0]["bbox"] == [1, 1, 0, 5]
