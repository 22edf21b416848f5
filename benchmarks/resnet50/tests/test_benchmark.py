"""The benchmark as the command line sees it."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from bench_resnet50 import assets, synthetic_images
from bench_resnet50.benchmark import BENCHMARK
from bench_resnet50.config import FILE, ResNetConfig, read_config
from bench_resnet50.dataset import Dataset
from bench_resnet50.formats import ONNX, PYTORCH
from loadgen.contracts import InputError
from loadgen.harness.cli import invoke


def test_every_name_can_be_imported() -> None:
    names = [BENCHMARK.dataset, BENCHMARK.postprocess, BENCHMARK.accuracy, *BENCHMARK.backends.values()]
    names += [profile.prepare for profile in BENCHMARK.profiles.values()]
    for dotted in [*names, BENCHMARK.train, BENCHMARK.profiles["synthetic"].synthesize]:
        module, _, attribute = dotted.partition(":")
        found = importlib.import_module(module)
        assert not attribute or callable(getattr(found, attribute))


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from bench_resnet50.__main__ import BENCHMARK
from loadgen.harness.cli import invoke
invoke(BENCHMARK, ["--help"])
print([name for name in ("numpy", "cv2", "torch", "onnx", "onnxruntime", "tensorflow", "tvm") if name in sys.modules])
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n"), done.stdout[-200:]
    assert "SingleStream, MultiStream, Server, Offline" in done.stdout
    assert time.monotonic() - began < 3


def test_accuracy_through_the_harness(mini: Path, tmp_path: Path) -> None:
    arguments = ["run", "--mode", "accuracy", "--scenario", "Offline", "--threads", "1", "--batch", "32"]
    assert invoke(BENCHMARK, [*arguments, "--data", str(mini), "--output", str(tmp_path)]) == 0
    (test,) = json.loads((tmp_path / "results.json").read_text())["tests"]
    reference = BENCHMARK.profiles["mini"].reference["accuracy"]
    assert test["accuracy"]["values"]["accuracy"] == pytest.approx(reference, abs=0.05)
    line = (tmp_path / "Offline" / "accuracy" / "accuracy.txt").read_text()
    good = test["accuracy"]["values"]["good"]
    assert line == f"accuracy={good / 20:.3f}%, good={good:.0f}, total=2000\n"


def test_every_scenario_is_valid_through_the_harness(mini: Path, tmp_path: Path) -> None:
    """The default durations are the session `nox -s resnet50`'s; here only as long as the rules allow."""
    conf = tmp_path / "user.conf"
    conf.write_text("resnet50.Server.target_qps = 300\n")  # its 800 queries take half the time
    arguments = ["run", "--mode", "performance", "--duration", "0.2", "--threads", "1", "--user-conf", str(conf)]
    assert invoke(BENCHMARK, [*arguments, "--data", str(mini), "--output", str(tmp_path)]) == 0
    tests = json.loads((tmp_path / "results.json").read_text())["tests"]
    assert [test["scenario"] for test in tests] == ["SingleStream", "MultiStream", "Server", "Offline"]


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
    assert read_config(tmp_path / "model" / FILE) == ResNetConfig()
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


def test_an_empty_folder_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(BENCHMARK, ["run", "--profile", "full", "--data", str(tmp_path)]) == 2
    assert "official files are missing" in capfd.readouterr().err


def test_the_module_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench_resnet50", "info"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
    )
    assert "ResNet-50 image classification" in done.stdout


def test_a_data_set_has_as_many_samples_as_info_counts_on(mini_dataset: Dataset) -> None:
    assert mini_dataset.total_count == BENCHMARK.profiles["mini"].samples
    assert BENCHMARK.profiles["synthetic"].samples == synthetic_images.COUNT
