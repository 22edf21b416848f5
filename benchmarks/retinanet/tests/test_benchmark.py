"""The benchmark as the command line sees it, and its official files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from bench_retinanet import assets
from bench_retinanet.benchmark import BENCHMARK
from bench_retinanet.official import ANNOTATIONS, ANNOTATIONS_ARCHIVE, ARCHIVE, CALIBRATION, ONNX, PICKLED, PYTORCH
from loadgen.contracts import InputError
from loadgen.harness.cli import invoke
from loadgen.harness.conformance import Check, conformance


@pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_the_full_profile_says_what_it_needs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--profile", "full", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert invoke(BENCHMARK, arguments) == 2
    message = capfd.readouterr().err
    for needed in (ANNOTATIONS_ARCHIVE, ONNX, ARCHIVE, "6617879", "6605272", "python -m bench_retinanet.images"):
        assert needed in message
    assert "Traceback" not in message


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"{}")


@pytest.mark.parametrize("weights", [ONNX, PYTORCH, PICKLED])
def test_a_filled_folder_is_taken(weights: str, tmp_path: Path) -> None:
    put(tmp_path, f"data/{ANNOTATIONS}", f"model/{weights}")
    assets.prepare(tmp_path)
    (tmp_path / "model" / weights).unlink()
    with pytest.raises(InputError, match=f"{ONNX} .*--backend onnxruntime"):
        assets.prepare(tmp_path)


def test_the_annotations_archive_is_unpacked(tmp_path: Path) -> None:
    put(tmp_path, f"model/{ONNX}", "data/x")
    with zipfile.ZipFile(tmp_path / assets.BOXES.path, "w") as archive:
        archive.writestr("openimages-mlperf_annotations_2.1.json", json.dumps({"images": [1]}))
        archive.writestr("__MACOSX/._openimages-mlperf_annotations_2.1.json", "x")
    assets.prepare(tmp_path)
    assert json.loads((tmp_path / "data" / ANNOTATIONS).read_text()) == {"images": [1]}


@pytest.mark.parametrize("content", ["cut", "other"])
def test_a_damaged_archive_is_named(content: str, tmp_path: Path) -> None:
    put(tmp_path, f"model/{ONNX}", "data/x")
    with zipfile.ZipFile(tmp_path / assets.BOXES.path, "w") as archive:
        archive.writestr("a.json" if content == "cut" else "a.txt", "{" + " " * 1000 + "}")
    if content == "cut":
        whole = (tmp_path / assets.BOXES.path).read_bytes()
        (tmp_path / assets.BOXES.path).write_bytes(whole[:60])
    with pytest.raises(InputError, match=rf"{ANNOTATIONS_ARCHIVE} (is damaged|holds 0 files that end with \.json)"):
        assets.prepare(tmp_path)
    assert not (tmp_path / "data" / ANNOTATIONS).exists()


@pytest.mark.parametrize(("backend", "weights"), [("onnxruntime", ONNX), ("pytorch", ARCHIVE)])
def test_fetch_knows_the_files_of_each_backend(
    backend: str, weights: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fetch", "--check", "--profile", "full", "--backend", backend, "--data", str(tmp_path)]
    assert invoke(BENCHMARK, arguments) == 2
    printed = capfd.readouterr()
    assert printed.out.count(": missing") == 3
    for name in (ANNOTATIONS_ARCHIVE, CALIBRATION, weights):
        assert f"{name}: missing" in printed.out
    assert "3 of 3 files are missing" in printed.err
