"""Preprocessing is the reference's, to the bit: `golden/reference.json` was written by its own code."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest

from bench_3d_unet.kits import Scan, read_scan, write_nifti
from bench_3d_unet.prepared import respaced
from bench_3d_unet.preprocess import PADDING, SPACING, fitted, normalised, preprocess

make_golden = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("make_golden.py"))))
GOLDEN: dict[str, Any] = json.loads(make_golden.FILE.read_text())


@pytest.fixture
def scan(tmp_path: Path, request: pytest.FixtureRequest) -> Scan:
    """A case through its two files."""
    image, label, affine = make_golden.scan(request.param)
    write_nifti(tmp_path / "imaging.nii.gz", image, affine)
    nibabel.Nifti1Image(label.astype(np.uint16), affine).to_filename(tmp_path / "segmentation.nii.gz")
    return read_scan(tmp_path)


@pytest.mark.parametrize(("scan", "name"), [(name, name) for name in make_golden.SCANS], indirect=["scan"])
def test_volumes_and_affines_are_the_references(scan: Scan, name: str) -> None:
    golden = GOLDEN["scans"][name]
    volume = preprocess(scan.image, scan.label, scan.spacing)
    assert list(volume.image.shape) == list(volume.label.shape) == golden["shape"]
    assert (volume.image.dtype, volume.label.dtype) == (np.float32, np.uint8)
    assert make_golden.digest(volume.image) == golden["image"]
    assert make_golden.digest(volume.label) == golden["label"]
    assert respaced(scan.affine).tolist() == golden["reshaped_affine"]
    assert (np.array(scan.spacing) / SPACING).tolist() == golden["zoom_factor"]


def test_a_wrong_order_of_the_spacing_would_be_seen() -> None:
    image, label, _ = make_golden.scan("thick slices")
    z, y, x = make_golden.SCANS["thick slices"][1]
    turned = preprocess(image.astype(np.float32), label, (x, y, z))
    assert list(turned.image.shape) != GOLDEN["scans"]["thick slices"]["shape"]


@pytest.mark.parametrize(
    ("side", "fitted_side", "first"),
    [(20, 32, 6), (32, 32, 0), (39, 32, -3), (40, 48, 4), (47, 48, 0), (48, 48, 0), (55, 48, -3), (56, 64, 4)],
)
def test_sides_are_cut_or_filled(side: int, fitted_side: int, first: int) -> None:
    """first: where the first voxel comes to lie; 6 of the 12 voxels that a side of 20 lacks come before it."""
    image = np.broadcast_to(np.arange(side, dtype=np.float32)[:, None, None], (side, 32, 32))
    made, label = fitted(image, np.ones((side, 32, 32), np.uint8), window=32)
    line = made[0, :, 0, 0]
    assert made.shape == (1, fitted_side, 32, 32)
    start = max(0, first)
    assert line[start : start + 5].tolist() == [max(0, -first) + step for step in range(5)]
    if side < 32:
        assert (line[:first] == 0).all(), "continued by its edge"
        assert label.all()
    elif first > 0:
        assert (line[:first] == np.float32(PADDING)).all()
        assert not label[0, :first].any()


def test_values_are_clipped_and_normalised() -> None:
    values = normalised(np.array([-1000, -79, 101, 304, 3000], np.float32))
    assert values.dtype == np.float32
    assert values.tolist() == pytest.approx([-180 / 76.9, -180 / 76.9, 0, 203 / 76.9, 203 / 76.9])
