"""The benchmark as the command line sees it."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from bench_sdxl import assets
from bench_sdxl.accuracy import score
from bench_sdxl.benchmark import BENCHMARK
from bench_sdxl.dataset import Dataset
from bench_sdxl.needs import memory_gb
from bench_sdxl.official import CLIP, INCEPTION
from bench_sdxl.standins import SIZES, synthetic
from loadgen.contracts import Scoring
from loadgen.harness.cli import invoke
from loadgen.harness.conformance import Check, conformance


@pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_without_scorers_performance_runs_and_accuracy_says_what_it_needs(mini: Path, tmp_path: Path) -> None:
    shutil.copytree(mini, tmp_path / "data")
    for name in (CLIP, INCEPTION):
        (tmp_path / "data" / "model" / name).unlink()
    run = ["run", "--scenario", "Offline", "--duration", "0.1", "--data", str(tmp_path / "data")]
    assert invoke(BENCHMARK, [*run, "--mode", "performance", "--output", str(tmp_path / "a")]) == 0
    dataset = Dataset(tmp_path / "data", **SIZES)
    with pytest.raises(assets.InputError) as raised:
        score([], dataset, Scoring(tmp_path / "data"))
    for said in ("ViT-B-32.pt", "pt_inception-2015-12-05-6726825d.pth", "performance tests need neither"):
        assert said in str(raised.value)


def complete(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_the_full_profile_wants_weights_of_16_or_of_32_bits(tmp_path: Path) -> None:
    shared = [asset.path for asset in (*assets.DATA, *assets.MODEL) if not asset.dtypes]
    for number, dtype in enumerate(("float16", "float32")):
        folder = tmp_path / str(number)
        complete(folder, shared + [asset.path for asset in assets.MODEL if dtype in asset.dtypes])
        assets.prepare(folder)
    (tmp_path / "1" / "model" / "checkpoint_pipe" / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(assets.InputError, match=r"vae/diffusion_pytorch_model.fp16.safetensors"):
        assets.prepare(tmp_path / "1")


def test_the_full_profile_takes_hugging_faces_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    half = [asset for asset in (*assets.DATA, *assets.MODEL) if not asset.dtypes or "float16" in asset.dtypes]
    names = [
        asset.path.replace("checkpoint_pipe/", "").replace("checkpoint_scheduler/scheduler", "scheduler")
        for asset in half
    ]
    complete(tmp_path, names)
    assets.prepare(tmp_path)
    said = capfd.readouterr().err
    assert "no accuracy test can be scored without these files" in said
    assert "ViT-B-32.pt" in said


def test_fetch_knows_the_files_of_each_dtype(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for dtype in ("float32", "float16", "bfloat16"):
        assert invoke(BENCHMARK, ["fetch", "--check", "--dtype", dtype, "--data", str(tmp_path)]) == 2
        printed = capfd.readouterr()
        assert printed.out.count(": missing") == 3 + 11 + 4 + 2  # data, configs and tokenizers, weights, scorers
        assert ("unet/diffusion_pytorch_model.fp16.safetensors" in printed.out) == (dtype == "float16")


def test_memory_grows_with_bits_and_batch() -> None:
    assert 6.9 < memory_gb("pytorch", "bfloat16", 1) < 15
    assert memory_gb("pytorch", "float32", 1) > 1.9 * memory_gb("pytorch", "bfloat16", 1) - 3
    assert memory_gb("pytorch", "bfloat16", 32) > memory_gb("pytorch", "bfloat16", 1)


def test_a_full_disk_is_noticed_before_the_weights_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.prepare(tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 10**9))
    unet = tmp_path / "model" / "checkpoint_pipe" / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(assets.InputError, match=r"needs 6.9 GB, 1.0 GB are free: make room"):
        synthetic.write_weights(unet)
    assert not unet.exists()
