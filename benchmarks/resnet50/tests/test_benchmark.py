"""The benchmark as the command line sees it, and its official files."""

from __future__ import annotations

import io
import os
import re
import tarfile
from pathlib import Path

import pytest

from bench_resnet50 import assets
from bench_resnet50.benchmark import BENCHMARK
from bench_resnet50.official import ONNX, PYTORCH
from loadgen.contracts import InputError
from loadgen.harness.cli import invoke
from loadgen.harness.conformance import Check, conformance


@pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


@pytest.mark.parametrize(
    ("profile", "records"), [("full", ("4735647", "2535873")), ("torchvision", ("4588417", "8073420"))]
)
def test_profiles_of_official_files_say_what_they_need(
    profile: str, records: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--profile", profile, "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert invoke(BENCHMARK, arguments) == 2
    message = capfd.readouterr().err
    for needed in ("ILSVRC2012_img_val.tar", "register at image-net.org", "val_map.txt", *records):
        assert needed in message
    assert "Traceback" not in message


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_filled_folder_is_taken(tmp_path: Path) -> None:
    put(tmp_path, "data/val_map.txt", f"model/{ONNX}")
    assets.prepare_full(tmp_path)
    with pytest.raises(InputError, match=PYTORCH):
        assets.prepare_torchvision(tmp_path)
    put(tmp_path, f"model/{PYTORCH}")
    assets.prepare_torchvision(tmp_path)


def archive(path: Path, members: dict[str, bytes], mode: str) -> None:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))


def test_archives_are_unpacked(tmp_path: Path) -> None:
    put(tmp_path, "data/x", f"model/{ONNX}")
    archive(tmp_path / assets.IMAGES.path, {"a.JPEG": b"A", "b.JPEG": b"B"}, "w")
    archive(tmp_path / assets.CLASSES.path, {"val.txt": b"a.JPEG 65\nb.JPEG 970\n", "train.txt": b""}, "w:gz")
    assets.prepare_full(tmp_path)
    assert (tmp_path / "data" / "val_map.txt").read_text() == "val/a.JPEG 65\nval/b.JPEG 970\n"
    assert (tmp_path / "data" / "val" / "b.JPEG").read_bytes() == b"B"


@pytest.mark.parametrize("cut", [assets.IMAGES, assets.CLASSES])
def test_a_damaged_archive_is_named(cut: assets.Asset, tmp_path: Path) -> None:
    put(tmp_path, "data/x", f"model/{ONNX}")
    archive(tmp_path / assets.IMAGES.path, {"a.JPEG": bytes(5000)}, "w")
    archive(tmp_path / assets.CLASSES.path, {"val.txt": os.urandom(5000)}, "w:gz")
    whole = (tmp_path / cut.path).read_bytes()
    (tmp_path / cut.path).write_bytes(whole[:1500])
    with pytest.raises(InputError, match=rf"{re.escape(Path(cut.path).name)} is damaged .*: fetch it again"):
        assets.prepare_full(tmp_path)
    assert not (tmp_path / "data" / "val_map.txt").exists()


@pytest.mark.parametrize(
    ("profile", "backend", "count"),
    [
        ("full", "onnxruntime", 3),
        ("full", "tvm", 3),
        ("full", "tensorflow", 3),
        ("torchvision", "pytorch", 3),
        ("torchvision", "ncnn", 4),
    ],
)
def test_fetch_knows_the_files_of_each_backend(
    profile: str, backend: str, count: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fetch", "--check", "--profile", profile, "--backend", backend, "--data", str(tmp_path)]
    assert invoke(BENCHMARK, arguments) == 2
    printed = capfd.readouterr()
    assert printed.out.count(": missing") == count  # images, classes, weights
    assert f"{count} of {count} files are missing" in printed.err
