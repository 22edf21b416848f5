"""The benchmark as the command line sees it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from bench_3d_unet import assets
from bench_3d_unet.benchmark import BENCHMARK
from bench_3d_unet.kits import IMAGING, SEGMENTATION
from bench_3d_unet.official import CASES, COPY, ONNX, SAVED_MODEL, TENSORFLOW
from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset
from loadgen.harness.cli import invoke
from loadgen.harness.conformance import Check, conformance
from loadgen.harness.plan import Request, resolve


@pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


@pytest.mark.parametrize("scenario", ["MultiStream", "Server"])
def test_other_scenarios_are_refused_with_the_reason(scenario: str) -> None:
    reason = f"3d_unet has no scenario '{scenario}': choose SingleStream, Offline. The rules ask for no other"
    with pytest.raises(InputError, match=reason):
        resolve(BENCHMARK, Request(scenarios=(scenario,)))


def test_equal_issue_is_the_rules(tmp_path: Path) -> None:
    """Volumes differ in cost: every one is issued equally often."""
    for test in resolve(BENCHMARK, Request(profile="full", data=tmp_path)).tests:
        assert test.settings.sample_concatenate_permutation
        assert test.origin["sample_concatenate_permutation"] == "rules v4.0"


def full_folder(folder: Path) -> Path:
    """Empty files in the places of all official ones but the weights."""
    for asset in assets.DATA:
        (folder / asset.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / asset.path).touch()
    (folder / "model").mkdir()
    return folder


def test_42_cases_are_fetched() -> None:
    cases = {Path(asset.path).parent.name for asset in assets.DATA}
    assert cases == {*CASES} - {COPY}
    assert len(assets.DATA) == 2 * 42


def test_the_full_profile_takes_weights_of_one_backend(tmp_path: Path) -> None:
    folder = full_folder(tmp_path)
    (folder / "model" / ONNX).touch()
    before = sorted(folder.rglob("*"))
    assets.prepare(folder)
    assert sorted(folder.rglob("*")) == before, "official files may lie where nobody can write"


def test_the_full_profile_takes_preprocessed_volumes(tmp_path: Path) -> None:
    for name in ("model/3dunet_kits19_pytorch.ptc", "data/preprocessed/preprocessed_files.pkl"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assets.prepare(tmp_path)


def test_missing_cases_are_named(tmp_path: Path) -> None:
    folder = full_folder(tmp_path)
    (folder / "model" / ONNX).touch()
    (folder / "data" / "raw" / CASES[3] / SEGMENTATION).unlink()
    (folder / "data" / "raw" / CASES[5] / IMAGING).unlink()
    with pytest.raises(
        InputError, match=f"raw/ {CASES[3]}, {CASES[5]}: imaging.nii.gz and segmentation.nii.gz of each"
    ):
        assets.prepare(folder)


@pytest.mark.parametrize("above", ["", "deeper/"])
def test_tensorflows_archive_is_unpacked(above: str, tmp_path: Path) -> None:
    folder = full_folder(tmp_path)
    with zipfile.ZipFile(folder / "model" / f"{TENSORFLOW}.zip", "w") as packed:
        packed.writestr(f"{above}{SAVED_MODEL}", "graph")
        packed.writestr(f"{above}{TENSORFLOW}/variables/variables.index", "weights")
    for _ in range(2):
        assets.prepare(folder)
    assert (folder / "model" / SAVED_MODEL).read_text() == "graph"
    assert (folder / "model" / TENSORFLOW / "variables" / "variables.index").read_text() == "weights"
    assert {file.name for file in (folder / "model").iterdir()} == {TENSORFLOW, f"{TENSORFLOW}.zip"}


def test_an_archive_of_something_else_is_named(tmp_path: Path) -> None:
    folder = full_folder(tmp_path)
    with zipfile.ZipFile(folder / "model" / f"{TENSORFLOW}.zip", "w") as packed:
        packed.writestr("readme.txt", "nothing")
    with pytest.raises(InputError, match=r"3dunet_kits19_128x128x128\.tf\.zip: holds no saved_model\.pb"):
        assets.prepare(folder)


@pytest.mark.parametrize("backend", BENCHMARK.backends)
def test_fetch_knows_the_files_of_each_backend(backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(BENCHMARK, ["fetch", "--check", "--backend", backend, "--data", str(tmp_path)]) == 2
    printed = capfd.readouterr()
    assert printed.out.count(": missing") == 2 * 42 + 1
    assert "85 of 85 files are missing or wrong" in printed.err


def test_labels_have_checksums() -> None:
    labels: list[Asset] = [asset for asset in assets.DATA if asset.path.endswith(SEGMENTATION)]
    assert len({asset.sha256 for asset in labels}) == 42
    assert all(len(asset.sha256) == 64 and asset.bytes > 50_000 for asset in labels)
