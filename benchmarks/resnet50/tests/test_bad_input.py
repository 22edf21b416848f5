"""What is wrong with a user's files is said in one message, which names the file, and exit code 2; what only looks
wrong is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from bench_resnet50.benchmark import BENCHMARK
from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.formats import ONNX, random_tensors, write_onnx
from loadgen.harness.cli import invoke

NARROW = ResNetConfig(layers=(1,), width=4)
MAP = Path("data/val_map.txt")
IMAGES = 4
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An official file of a network that takes no time."""
    path = tmp_path_factory.mktemp("weights") / ONNX
    write_onnx(path, NARROW, random_tensors(NARROW, 1))
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path: Path, weights: bytes) -> Path:
    """As --data wants it, with four images."""
    (tmp_path / "model").mkdir()
    write_config(tmp_path / "model" / FILE, NARROW)
    (tmp_path / "model" / ONNX).write_bytes(weights)
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(1)
    for number in range(IMAGES):
        pixels = rng.integers(0, 256, (90, 120, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / f"{number}.JPEG")
    listed(*(f"{number}.JPEG {number}" for number in range(IMAGES)))(tmp_path)
    return tmp_path


def listed(*lines: str, end: str = "\n") -> Change:
    return lambda folder: (folder / MAP).write_bytes("".join(line + end for line in lines).encode())


def cut(folder: Path) -> None:
    path = folder / "data" / "2.JPEG"
    path.write_bytes(path.read_bytes()[:-700])


def renamed(slot: str) -> Change:
    """An ONNX file whose input or output is called otherwise."""

    def change(folder: Path) -> None:
        model = onnx.load(folder / "model" / ONNX)
        for node in model.graph.node:
            node.input[:] = ["other" if name == slot else name for name in node.input]
            node.output[:] = ["other" if name == slot else name for name in node.output]
        for value in [*model.graph.input, *model.graph.output]:
            value.name = "other" if value.name == slot else value.name
        onnx.save(model, folder / "model" / ONNX)

    return change


def started(folder: Path, *more: str) -> int:
    arguments = ["run", "--profile", "full", "--scenario", "Offline", "--mode", "accuracy", "--threads", "1", *more]
    return invoke(BENCHMARK, [*arguments, "--data", str(folder), "--output", str(folder / "out")])


WRONG: dict[str, tuple[Change, tuple[str, ...]]] = {
    "cut JPEG": (cut, ("1 of 4 images cannot be read: sample 2, ", "2.JPEG: the JPEG file is cut short", "put the")),
    "empty image": (lambda f: (f / "data/1.JPEG").write_bytes(b""), ("sample 1, ", "1.JPEG: 0 bytes are no image")),
    "text as image": (lambda f: (f / "data/1.JPEG").write_text("no" * 99), ("1.JPEG: 198 bytes are no image",)),
    "too elongated": (
        lambda f: Image.new("RGB", (1, 4000)).save(f / "data/3.JPEG"),
        ("3.JPEG: 1 x 4000 pixels are too elongated",),
    ),
    "no image": (lambda f: (f / "data/1.JPEG").unlink(), ("1 of 4 images are missing", "1.JPEG (line 2)", "put them")),
    "no map": (lambda f: (f / MAP).unlink(), ("val_map.txt", "register at image-net.org")),
    "empty map": (listed(), ("val_map.txt: holds no line",)),
    "no class": (listed("0.JPEG 0", "1.JPEG"), ("val_map.txt:2: '1.JPEG' is not a file name and a class",)),
    "three columns": (listed("0.JPEG 0 0"), ("val_map.txt:1: '0.JPEG 0 0' is not", "correct the line")),
    "no number": (listed("0.JPEG 0", "1.JPEG zebra"), ("val_map.txt:2: '1.JPEG zebra' is not", "correct the line")),
    "class too great": (listed("0.JPEG 1000"), ("val_map.txt:1: class 1000 is not one of 0 to 999",)),
    "negative class": (listed("0.JPEG -1"), ("val_map.txt:1: '0.JPEG -1' is not",)),
    "empty line": (listed("0.JPEG 0", "", "1.JPEG 1"), ("val_map.txt:2: ''",)),
    "same image twice": (
        listed("0.JPEG 0", "1.JPEG 1", "0.JPEG 2"),
        ("val_map.txt:3: 0.JPEG is in line 1 too", "remove one"),
    ),
    "other input": (renamed("input_tensor:0"), (ONNX, "'other'", "expected input 'input_tensor:0'", "official file")),
    "other output": (renamed("softmax_tensor:0"), (ONNX, "'other'", "'softmax_tensor:0'", "use the official file")),
    "cut weights": (lambda f: (f / "model" / ONNX).write_bytes(b"\x08\x07junk"), (ONNX, "cannot load it", "again")),
    "no weights": (lambda f: (f / "model" / ONNX).unlink(), (ONNX, "https://zenodo.org/records/4735647")),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_fault_is_named(fault: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change, expected = WRONG[fault]
    change(folder)
    code = started(folder)
    error = capfd.readouterr().err
    assert code == 2, error
    assert error.count("error: ") == 1
    assert "Traceback" not in error
    for part in expected:
        assert part in error


def test_an_empty_folder_is_told_what_it_lacks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert started(tmp_path) == 2
    error = capfd.readouterr().err
    assert "official files are missing" in error
    assert "data/ may hold the images and val_map.txt instead" in error


def counted(folder: Path) -> float:
    (test,) = json.loads((folder / "out" / "results.json").read_text())["tests"]
    total: float = test["accuracy"]["values"]["total"]
    return total


def test_unusual_images_are_taken(folder: Path) -> None:
    """Grey, CMYK, a single pixel, and a PNG file under a JPEG's name. Their pixels: see test_preprocess.py."""
    pixels = Image.open(folder / "data" / "0.JPEG")
    pixels.convert("L").save(folder / "data" / "0.JPEG")
    pixels.convert("CMYK").save(folder / "data" / "1.JPEG")
    Image.new("RGB", (1, 1), (9, 200, 30)).save(folder / "data" / "2.JPEG")
    pixels.save(folder / "data" / "3.JPEG", "PNG")
    assert started(folder) in (0, 1), "nothing was learnt, so the target is missed"
    assert counted(folder) == IMAGES


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_map_that_windows_wrote_is_taken(start: str, folder: Path) -> None:
    listed(f"{start}0.JPEG 0", "1.JPEG 1", end="\r\n")(folder)
    assert started(folder) in (0, 1)
    assert counted(folder) == 2
