"""What is wrong with ncnn's two files is named, where ncnn itself would crash or take it in silence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_resnet50.batch import Batch
from bench_resnet50.official import NCNN
from loadgen.contracts import InputError

WEIGHTS = NCNN.replace(".param", ".bin")
Load = Callable[..., Any]


def test_a_batch_is_its_images(small_files: Path, small_batch: Batch, load: Load) -> None:
    together = load("ncnn", small_files, threads=2).submit(small_batch).result()
    alone = load("ncnn", small_files)
    each = [alone.submit(Batch(image[None])).result() for image in small_batch.images]
    assert np.abs(together - np.concatenate(each)).max() < 1e-4
    assert len({row.tobytes() for row in together.round(3)}) == 5


def _text(pattern: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text, count = re.subn(pattern, new, (folder / NCNN).read_text())
        assert count
        (folder / NCNN).write_text(text)

    return change


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes())) and None


DAMAGE: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no bin": (lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS, "no such file"),
    "another magic": (_text("^7767517", "7767518"), NCNN, "does not begin with 7767517"),
    "a line is lost": (_text(r"Pooling maxpool.*\n", ""), NCNN, r"has \d+ layers, its second line says \d+"),
    "a line is cut": (_text(r"InnerProduct out0.*\n", "InnerProduct\n"), NCNN, "not as ncnn writes it"),
    "no size": (_text(r" 6=\d+", " 6="), NCNN, "layer 'conv1' does not say the size"),
    "another input": (_text("in0", "data"), NCNN, "has no blob in0"),
    "another output": (_text("out0", "prob"), NCNN, "has no blob out0"),
    "an unknown layer": (_text("Split", "Splot"), NCNN, "cannot load it"),
    "a blob that no layer gives": (_text(r"avgpool out0", "nothing out0"), NCNN, "cannot load it"),
    "another kernel": (_text("0=8 1=7", "0=8 1=5"), NCNN, "cannot load it"),
    "empty bin": (_bytes(lambda data: b""), WEIGHTS, "ends within layer 'conv1'"),
    "cut bin": (_bytes(lambda data: data[:-2]), WEIGHTS, "ends within layer 'out0'"),
    "longer bin": (_bytes(lambda data: data + bytes(8)), WEIGHTS, "8 bytes beyond the last layer"),
    "other bytes": (_bytes(lambda data: b"\x01garbage" * 4000), WEIGHTS, "layer 'conv1' are not marked as float"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told(damage: str, small: Path, load: Load) -> None:
    change, file, message = DAMAGE[damage]
    change(small)
    with pytest.raises(InputError, match=message) as caught:
        load("ncnn", small)
    assert str(small / file) in str(caught.value)
