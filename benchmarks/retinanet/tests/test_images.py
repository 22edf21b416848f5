"""The command that gets OpenImages' images, against a server on this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from bench_retinanet import images
from bench_retinanet.annotations import read_annotations
from bench_retinanet.official import ANNOTATIONS, IMAGE_FOLDERS
from loadgen.contracts import InputError

Folder = Callable[..., Path]


class Quiet(SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: Any) -> None:
        self.asked.append(self.path)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a bucket with images 0 to 5."""
    place = tmp_path / "bucket"
    place.mkdir()
    for number in range(6):
        (place / f"{number}.jpg").write_bytes(bytes([number]) * (1000 + number))
    monkeypatch.setattr(Quiet, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def data(folder: Folder) -> Path:
    """A data folder whose images are named, and not there."""
    place = folder([np.zeros((5, 5, 3), np.uint8)] * 6) / "data"
    for file in (place / IMAGE_FOLDERS[0]).iterdir():
        file.unlink()
    return place


def test_images_are_fetched_once(data: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = read_annotations(data / ANNOTATIONS, 3).pictures
    (data / IMAGE_FOLDERS[0] / "2.jpg").write_bytes(b"there")
    assert images.fetch_images(data, pictures, bucket, workers=3) == 5
    assert (data / IMAGE_FOLDERS[0] / "2.jpg").read_bytes() == b"there"
    assert (data / IMAGE_FOLDERS[0] / "5.jpg").read_bytes() == bytes([5]) * 1005
    assert len(Quiet.asked) == 5
    monkeypatch.setattr(images, "BUCKET", bucket)
    assert images.fetch_images(data, pictures, bucket) == 0
    assert len(Quiet.asked) == 5


def test_one_that_is_not_there_does_not_stop_the_others(data: Path, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "bucket" / "3.jpg").unlink()
    pictures = read_annotations(data / ANNOTATIONS, 3).pictures
    message = r"1 of 6 images are still missing: call again, or put them in .*validation/data\. .*3\.jpg: .* 404"
    with pytest.raises(InputError, match=message) as caught:
        images.fetch_images(data, pictures, bucket)
    assert "--from" not in str(caught.value), "an option of another command"
    assert len(list((data / IMAGE_FOLDERS[0]).glob("*.jpg"))) == 5


def test_the_command(
    data: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(images.fetch_images, "__defaults__", (bucket, 4))
    assert images.main([str(data)]) == 0
    assert "all 6 images are there, 6 of them new" in capsys.readouterr().out
    assert images.main([str(data / "none")]) == 2
    assert "openimages-mlperf.json: no such file" in capsys.readouterr().err
