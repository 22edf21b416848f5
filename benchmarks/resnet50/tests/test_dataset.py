"""The images that `val_map.txt` lists: loaded once, kept, and never exchanged."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bench_resnet50 import crops, dataset
from bench_resnet50.batch import Batch
from bench_resnet50.dataset import Dataset
from bench_resnet50.preprocess import crop
from loadgen.contracts import InputError

Folder = Callable[..., Path]
Draw = Callable[[int, int], npt.NDArray[np.uint8]]


def test_loads_exactly_what_is_asked_for(image_folder: Folder, noise: Draw) -> None:
    folder = image_folder(*(noise(90, 80 + n) for n in range(5)))
    data = Dataset(folder, image=64)
    assert data.costs(np.array([4, 0])).tolist() == [1, 1]
    assert (data.total_count, data.performance_count, data.labels.tolist()) == (5, 5, [0, 1, 2, 3, 4])
    data.load([3, 1])
    batch = data.gather(np.array([1, 3, 1]))
    expected = [crop((folder / "data" / f"{n}.JPEG").read_bytes(), 64, "tf") for n in (1, 3, 1)]
    assert np.array_equal(batch.images, np.stack(expected))
    assert not data._crops.pixels[[0, 2, 4]].any(), "others were not prepared"
    assert len(batch.source) == 2, "what is loaded is in memory, and nothing else"
    with pytest.raises(ValueError, match="sample 2 is not loaded"):
        data.gather(np.array([1, 2]))
    data.load([0, 1])
    assert np.array_equal(data.gather(np.array([1, 3, 1])).images, batch.images), "what was loaded before stays"
    data.unload([0])
    assert np.array_equal(data.gather(np.array([1, 3, 1])).images, batch.images)
    data.unload([3, 1])
    assert not len(data.gather(np.array([], np.int64)).source)
    with pytest.raises(ValueError, match="sample 1 is not loaded"):
        data.gather(np.array([1]))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each image that is decoded."""
    calls: list[int] = []

    def counting(*arguments: Any) -> Any:
        calls.append(1)
        return crop(*arguments)

    monkeypatch.setattr(crops, "crop", counting)
    return calls


def test_an_image_is_prepared_once(image_folder: Folder, noise: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    folder = image_folder(*(noise(90, 80) for _ in range(4)))
    first = Dataset(folder, image=64)
    first.load(range(3))
    first.load(range(3))
    assert len(calls) == 3
    again = Dataset(folder, image=64)
    again.load(range(4))
    assert len(calls) == 4
    assert np.array_equal(again.gather(np.array([0, 1, 2])).images, first.gather(np.array([0, 1, 2])).images)


def test_changed_files_and_damaged_rows_are_prepared_again(
    image_folder: Folder, noise: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = image_folder(noise(90, 80), noise(90, 80), noise(90, 80))
    data = Dataset(folder, image=64)
    data.load(range(3))
    before = data.gather(np.array([0, 1, 2])).images
    cv2.imwrite(str(folder / "data" / "0.JPEG"), 255 - before[0])
    with data._crops.path.open("r+b") as file:  # a byte in the middle of image 2
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1000, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    calls = counted(monkeypatch)
    data = Dataset(folder, image=64)
    data.load(range(3))
    assert len(calls) == 2
    after = data.gather(np.array([0, 1, 2])).images
    assert not np.array_equal(after[0], before[0])
    assert np.array_equal(after[1:], before[1:])


def test_another_list_or_size_or_variant_begins_anew(image_folder: Folder, noise: Draw) -> None:
    folder = image_folder(noise(90, 80), noise(90, 80))
    one = Dataset(folder, image=64)
    one.load([0, 1])
    (folder / "data" / "val_map.txt").write_text("1.JPEG 1\n0.JPEG 0\n")
    for other in (Dataset(folder, image=64), Dataset(folder, image=48), Dataset(folder, image=64, variant="torch")):
        other.load([0, 1])
        size = other.gather(np.array([0])).images.shape[1]
        expected = crop(other.files[0].read_bytes(), size, other.variant)
        assert np.array_equal(other.gather(np.array([0])).images[0], expected)
    assert one.gather(np.array([0])).images.any(), "what another run still reads stays as it is"


def test_a_folder_that_cannot_be_written(
    image_folder: Folder, noise: Draw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = image_folder(noise(90, 80))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(crops.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    data = Dataset(folder, image=64)
    data.load([0])
    assert data._crops.path.is_relative_to(tmp_path / "temporary")
    assert sorted(file.name for file in (folder / "data").iterdir()) == ["0.JPEG", "val_map.txt"]


def test_unreadable_images_are_named(image_folder: Folder, noise: Draw) -> None:
    folder = image_folder(*(noise(90, 80) for _ in range(3)))
    whole = (folder / "data" / "1.JPEG").read_bytes()
    (folder / "data" / "1.JPEG").write_bytes(whole[: len(whole) // 2])
    data = Dataset(folder, image=64)
    data.load([0, 2])
    with pytest.raises(InputError, match=r"1 of 3 images cannot be read: sample 1, .*1\.JPEG: .*cut short"):
        data.load([0, 1, 2])


def test_missing_images_are_named_before_anything_runs(image_folder: Folder, noise: Draw) -> None:
    folder = image_folder(*(noise(90, 80) for _ in range(3)))
    (folder / "data" / "1.JPEG").unlink()
    with pytest.raises(InputError, match=r"1 of 3 images are missing, the first is .*1\.JPEG \(line 2\)"):
        Dataset(folder, image=64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file: put ImageNet"),
        (b"", "holds no line"),
        (b"\n\n", "holds no line"),
        (b"0.JPEG 0\n\n0.JPEG 0\n", r"val_map\.txt:2: '' is not a file name and a class"),
        (b"0.JPEG\n", r"val_map\.txt:1: '0.JPEG' is not a file name and a class"),
        (b"0.JPEG 0\n0.JPEG zero\n", r"val_map\.txt:2: '0.JPEG zero' is not"),
        (b"0.JPEG 0 0\n", r"val_map\.txt:1"),
        (b"0.JPEG 1000\n", r"val_map\.txt:1: class 1000 is not one of 0 to 999"),
        (b"0.JPEG -1\n", r"val_map\.txt:1: '0.JPEG -1' is not"),
        (b"0.JPEG 0\n1.JPEG 1\n0.JPEG 2\n", r"val_map\.txt:3: 0.JPEG is in line 1 too: remove one"),
        (b"\xff\xfe\xff", "not a text file"),
    ],
)
def test_a_wrong_map_is_named(content: bytes | None, message: str, image_folder: Folder, noise: Draw) -> None:
    folder = image_folder(noise(90, 80))
    (folder / "data" / "val_map.txt").unlink()
    if content is not None:
        (folder / "data" / "val_map.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        Dataset(folder, image=64)


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_map_that_windows_wrote_is_taken(start: str, image_folder: Folder, noise: Draw) -> None:
    folder = image_folder(noise(90, 80), noise(90, 80))
    (folder / "data" / "val_map.txt").write_bytes(f"{start}0.JPEG 4\r\n1.JPEG 2\r\n".encode())
    assert Dataset(folder).labels.tolist() == [4, 2]


def test_unusual_images_are_taken(image_folder: Folder, noise: Draw) -> None:
    """Grey, CMYK, a single pixel, and a PNG file under a JPEG's name. Their pixels: see test_preprocess.py."""
    folder = image_folder(*(noise(90, 80) for _ in range(4)))
    files = [folder / "data" / f"{number}.JPEG" for number in range(4)]
    pixels = Image.open(files[0])
    pixels.convert("L").save(files[0])
    pixels.convert("CMYK").save(files[1])
    Image.new("RGB", (1, 1), (9, 200, 30)).save(files[2])
    pixels.save(files[3], "PNG")
    data = Dataset(folder, image=64)
    data.load(range(4))
    assert data.gather(np.arange(4)).images.any(axis=(1, 2, 3)).all()


def test_an_unknown_variant(image_folder: Folder, noise: Draw) -> None:
    with pytest.raises(InputError, match="variant 'caffe': use tf or torch"):
        Dataset(image_folder(noise(90, 80)), variant="caffe")


def test_a_full_disk_is_an_error_of_the_user(
    image_folder: Folder, noise: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Dataset(image_folder(noise(90, 80)), image=64)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(crops.os, "pwrite", full)
    with pytest.raises(InputError, match="No space left on device"):
        data.load([0])


def test_a_long_preparation_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    times = iter(range(0, 1000, 2))
    monkeypatch.setattr(dataset.time, "monotonic", lambda: next(times))
    assert list(dataset._telling(iter(["", "", "", ""]), 4)) == ["", "", "", ""]
    assert capfd.readouterr().err.splitlines() == [
        "prepared 3 of 4 images, 0 a second",
        "prepared 4 of 4 images, 0 a second",
    ]


def test_a_batch_takes_only_its_own_images_to_another_process() -> None:
    source = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    batch = Batch(source, "torch", np.array([7, 3, 7]))
    sent = pickle.dumps(batch)
    assert len(sent) < 2000
    arrived = pickle.loads(sent)
    assert (len(arrived), arrived.variant) == (3, "torch")
    assert np.array_equal(arrived.images, source[[7, 3, 7]])
