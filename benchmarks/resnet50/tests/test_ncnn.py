"""ncnn's two files are in the official form, and what else may be there is named. Logits: see test_agreement.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_resnet50.backend_ncnn import Backend, check_files
from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.dataset import Batch
from bench_resnet50.format_ncnn import folded, write_ncnn
from bench_resnet50.formats import NCNN, random_tensors
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.assets.files import whole_file

SMALL = ResNetConfig(layers=(1, 1), width=4, classes=6, image=20)
WEIGHTS = NCNN.replace(".param", ".bin")


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    return random_tensors(SMALL, 1)


@pytest.fixture
def model(tensors: dict[str, Any], tmp_path: Path) -> Path:
    write_config(tmp_path / FILE, SMALL)
    write_ncnn(tmp_path / NCNN, SMALL, tensors)
    return tmp_path


def loaded(folder: Path, threads: int = 2, **options: Any) -> Backend:
    backend = Backend(BackendOptions(folder, threads=threads, **options))
    backend.load()
    return backend


def test_the_files_are_as_the_official_ones(model: Path, tensors: dict[str, Any]) -> None:
    head, counts, first, *lines = (model / NCNN).read_text().splitlines()
    assert head == "7767517"
    assert first.split() == ["Input", "in0", "0", "1", "in0"]
    layers = [line.split() for line in (first, *lines)]
    blobs = [name for words in layers for name in words[4 + int(words[2]) :][: int(words[3])]]
    assert counts == f"{len(layers)} {len(blobs)}"
    assert len(set(blobs)) == len(blobs)
    assert lines[-1].split()[:2] == ["InnerProduct", "out0"]
    assert "layer2.0.conv2 1 1 layer2.0.conv1 layer2.0.conv2 0=8 1=3 3=2 4=1" in (model / NCNN).read_text()  # v1.5
    weight, bias = folded(tensors, "conv1", "bn1")
    start = bytes(4) + weight.tobytes() + bias.tobytes()
    assert (model / WEIGHTS).read_bytes()[: len(start)] == start


def test_a_batch_is_its_images(model: Path) -> None:
    images = np.random.default_rng(2).integers(0, 256, (5, 20, 20, 3)).astype(np.uint8)
    together = loaded(model).submit(Batch(images, "torch")).result()
    alone = loaded(model, threads=1)
    each = np.concatenate([alone.predict(Batch(image[None], "torch")) for image in images])
    assert together.shape == (5, 6)
    assert together.dtype == np.float32
    assert np.abs(each).max() > 0.1, "large enough for the tolerance to mean something"
    assert np.abs(together - each).max() < 1e-4
    assert len({row.tobytes() for row in together.round(3)}) == 5


def test_a_name_that_is_not_the_final_one(tensors: dict[str, Any], tmp_path: Path) -> None:
    """Written as other files are: complete or not at all, the weights first."""
    with whole_file(tmp_path / NCNN) as part:
        write_ncnn(part, SMALL, tensors)
    assert sorted(file.name for file in tmp_path.iterdir()) == [WEIGHTS, NCNN]
    check_files(tmp_path / NCNN)


def _text(pattern: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text, count = re.subn(pattern, new, (folder / NCNN).read_text())
        assert count
        (folder / NCNN).write_text(text)

    return change


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes())) and None


DAMAGE: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no param": (lambda folder: (folder / NCNN).unlink(), NCNN, "no such file"),
    "no bin": (lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS, "no such file"),
    "empty param": (lambda folder: (folder / NCNN).write_text(""), NCNN, "does not begin with 7767517"),
    "binary param": (lambda folder: (folder / NCNN).write_bytes(b"\x85\xd7\xff" * 99), NCNN, "does not begin with"),
    "another magic": (_text("^7767517", "7767518"), NCNN, "does not begin with 7767517"),
    "a line is lost": (_text(r"Pooling maxpool.*\n", ""), NCNN, r"has \d+ layers, its second line says \d+"),
    "a line is cut": (_text(r"InnerProduct out0.*\n", "InnerProduct\n"), NCNN, "not as ncnn writes it"),
    "no size": (_text(r" 6=\d+", " 6="), NCNN, "layer 'conv1' does not say the size"),
    "another input": (_text("in0", "data"), NCNN, "has no blob in0"),
    "another output": (_text("out0", "prob"), NCNN, "has no blob out0"),
    "an unknown layer": (_text("Split", "Splot"), NCNN, "cannot load it"),
    "a blob that no layer gives": (_text(r"avgpool out0", "nothing out0"), NCNN, "cannot load it"),
    "another kernel": (_text("0=4 1=7", "0=4 1=5"), NCNN, "cannot load it"),
    "empty bin": (_bytes(lambda data: b""), WEIGHTS, "ends within layer 'conv1'"),
    "cut bin": (_bytes(lambda data: data[:-2]), WEIGHTS, "ends within layer 'out0'"),
    "longer bin": (_bytes(lambda data: data + bytes(8)), WEIGHTS, "8 bytes beyond the last layer"),
    "other bytes": (_bytes(lambda data: b"\x01garbage" * 4000), WEIGHTS, "layer 'conv1' are not marked as float"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told(damage: str, model: Path) -> None:
    change, file, message = DAMAGE[damage]
    change(model)
    with pytest.raises(InputError, match=message) as caught:
        loaded(model)
    assert str(model / file) in str(caught.value)


def test_another_number_of_classes_is_told(model: Path) -> None:
    write_config(model / FILE, replace(SMALL, classes=7))
    with pytest.raises(InputError, match=r"blob 'out0' has shape \[6\], expected \[7\]"):
        loaded(model)


def test_what_the_backend_has_not_is_an_error(model: Path) -> None:
    with pytest.raises(InputError, match="device 'cuda': this backend runs on cpu"):
        loaded(model, device="cuda")
    with pytest.raises(InputError, match="dtype 'int8'"):
        loaded(model, dtype="int8")
    with pytest.raises(InputError, match="use --profile"):
        loaded(model, extra={"variant": "tf"})
