"""The sliding window gives the reference's labels, MONAI's, and those of a plain loop."""

from __future__ import annotations

import json
import runpy
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from monai.inferers.utils import compute_importance_map

from bench_3d_unet import sliding_window
from bench_3d_unet.sliding_window import F32, count, places, segment, weights

make_golden = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("make_golden.py"))))
GOLDEN: dict[str, Any] = json.loads(make_golden.FILE.read_text())


def plain(volume: F32, window: int) -> Any:
    """A loop over windows, one at a time, with the sum of weights and the division that we leave out."""
    sums, norm, weight = np.zeros((3, *volume.shape), np.float32), np.zeros(volume.shape, np.float32), weights(window)
    for z in range(0, volume.shape[0] - window + 1, window // 2):
        for y in range(0, volume.shape[1] - window + 1, window // 2):
            for x in range(0, volume.shape[2] - window + 1, window // 2):
                at = np.s_[..., z : z + window, y : y + window, x : x + window]
                sums[at] += make_golden.logits(volume[at][None, None])[0] * weight
                norm[at] += weight
    return (sums / norm).argmax(0)


def test_weights_are_the_references() -> None:
    """The cube root that widens them is in it: 27.7 voxels, not 16."""
    found = weights(128)
    assert found.dtype == np.float32
    assert found[20, 40].tolist() == pytest.approx(GOLDEN["weights"], rel=1e-6)
    middle = found[63, 63] / found[63, 63, 63]
    assert middle[63 + 28] == pytest.approx(np.exp(-0.5 * 27 * 28 / (3 * 16**2)), rel=1e-5)


def test_weights_are_monais_cube_root_of_a_gaussian() -> None:
    """MONAI's is of the product of three Gaussians, which the reference takes the cube root of."""
    theirs = compute_importance_map((32, 32, 32), mode="gaussian", sigma_scale=0.125).numpy()
    ours = weights(32)
    line = np.s_[5, 15, 8:24]  # away from where MONAI lifts small weights
    assert np.cbrt(theirs[line] / theirs.max()) == pytest.approx(ours[line], rel=1e-5)


def test_labels_are_the_references() -> None:
    volume = make_golden.volume()
    (labels,) = segment([volume], make_golden.logits, 128, batch=4)
    assert (labels.dtype, [1, 1, *labels.shape]) == (np.uint8, GOLDEN["answer"]["shape"])
    assert GOLDEN["answer"]["dtype"] == "uint8"
    assert make_golden.digest(labels) == GOLDEN["answer"]["sha256"]
    assert 0.2 < (labels > 0).mean() < 0.8, "a test of one label would show nothing"


def test_labels_are_monais() -> None:
    """With our weights in the place of its own, as it cannot be asked for a cube root."""
    rng = np.random.default_rng(1)
    volume = rng.standard_normal((48, 32, 64)).astype(np.float32)

    def predict(windows: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(make_golden.logits(windows.numpy()))

    theirs = sliding_window_inference(
        torch.from_numpy(volume)[None, None],
        roi_size=(32, 32, 32),
        sw_batch_size=3,
        predictor=predict,
        overlap=0.5,
        roi_weight_map=torch.from_numpy(weights(32)),
    )
    (ours,) = segment([volume], make_golden.logits, 32, batch=4)
    assert (ours == theirs[0].argmax(0).numpy()).all()


@pytest.mark.parametrize("batch", [1, 4, 5, 100])
def test_windows_of_several_volumes_share_batches(batch: int) -> None:
    rng = np.random.default_rng(3)
    shapes = [(16, 16, 16), (24, 16, 32), (16, 24, 16), (32, 32, 24)]
    volumes = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    sizes = []

    def predict(windows: F32) -> F32:
        sizes.append(len(windows))
        return make_golden.logits(windows)

    labels = segment(volumes, predict, 16, batch)
    windows = sum(count(shape, 16) for shape in shapes)
    assert windows == 1 + 6 + 2 + 18
    assert sizes[:-1] == [batch] * (windows // batch if windows % batch else windows // batch - 1)
    assert sum(sizes) == windows
    for found, volume in zip(labels, volumes, strict=True):
        assert (found == plain(volume, 16)).all()


def test_places_cover_every_voxel_and_nothing_else() -> None:
    seen = np.zeros((32, 48, 40), int)
    for place in places(seen.shape, 16):
        seen[place] += 1
    assert count(seen.shape, 16) == len(list(places(seen.shape, 16))) == 3 * 5 * 4
    assert seen.min() == 1
    assert seen.max() == 8


def test_logits_that_are_not_finite_are_an_error() -> None:
    def predict(windows: F32) -> F32:
        found = make_golden.logits(windows)
        found[0, 1, 3, 3, 3] = np.nan
        return found

    with pytest.raises(ValueError, match="not all finite"):
        segment([np.zeros((16, 16, 16), np.float32)], predict, 16, 1)


def test_equal_sums_give_the_first_label() -> None:
    sums = np.array([[1, 1, 0, 2], [1, 2, 3, 0], [0, 2, 3, 3]], np.float32).reshape(3, 1, 2, 2)
    assert sliding_window.labels_of(sums).ravel().tolist() == sums.argmax(0).ravel().tolist() == [0, 1, 1, 2]


def test_labels_take_a_byte_a_voxel() -> None:
    """README.md states what a volume of 144 windows takes."""
    sums = np.random.default_rng(0).standard_normal((3, 64, 64, 64)).astype(np.float32)
    tracemalloc.start()
    try:
        labels = sliding_window.labels_of(sums)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (labels == sums.argmax(0)).all()
    assert peak < 1.3 * labels.size
