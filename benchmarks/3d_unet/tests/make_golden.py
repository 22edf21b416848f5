"""Writes golden/reference.json: what the reference's own code makes of volumes that follow from a seed.

`python tests/make_golden.py FOLDER`, where FOLDER is `vision/medical_imaging/3d-unet-kits19` of a clone of
github.com/mlcommons/inference. The tests need only the file: they see that our preprocessing, sliding window and score
give the same. What the reference imports and no longer exists (old names in SciPy) or is of no use here (LoadGen,
pandas) is put in its place below.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

FILE = Path(__file__).with_name("golden") / "reference.json"

SCANS: dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = {
    "thick slices": ((50, 180, 200), (5.0, 0.75, 0.78125)),  # 156 x 112 x 130: cut, filled by its edge, cut
    "thin slices": ((230, 150, 190), (0.5, 1.3, 0.9)),  # 72 x 162 x 142: edge, filled, cut
    "as wanted": ((128, 161, 192), (1.6, 1.2, 1.2)),  # not resampled
}
"""Name -> voxels and mm. float32 numbers such as 0.78125 and 1.3 stand for exact and rounded ones in a header."""


def scan(name: str) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Hounsfield units, labels and affine, from integers alone; the affine is turned as KiTS19's."""
    shape, spacing = SCANS[name]
    rng = np.random.default_rng([*shape])
    coarse = rng.integers(-300, 500, [-(-side // 8) for side in shape])
    image = coarse.repeat(8, 0).repeat(8, 1).repeat(8, 2)[tuple(map(slice, shape))] + rng.integers(-60, 60, shape)
    affine = np.diag([0.0, -spacing[1], 0.0, 1.0])
    affine[2, 0], affine[0, 2] = -spacing[0], spacing[2]
    affine[:3, 3] = 10, -20, 30
    return image.astype(np.int16), ((image > 150) * 1 + (image > 350)).astype(np.uint8), affine


def volume() -> npt.NDArray[np.float32]:
    """[128, 192, 256], as a preprocessed one: 6 windows."""
    rng = np.random.default_rng(5)
    coarse = rng.normal(0, 1, (16, 24, 32)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    return (coarse + rng.normal(0, 0.5, coarse.shape)).astype(np.float32)


def logits(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[n, 3, W, W, W] of [n, 1, W, W, W], which depend on a voxel's place in its window, as near its edges."""
    slope = np.linspace(-1, 1, windows.shape[-1], dtype=np.float32)
    moved = np.roll(windows, 3, axis=-1)
    return np.concatenate([windows * 0 + 0.3, windows * slope, moved * slope[:, None]], axis=1)


def labels() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Found and true ones, [4, 4, 8, 8, 8] each; a class is in neither, in one and in the other."""
    found, truth = np.random.default_rng(9).integers(0, 3, (2, 4, 8, 8, 8)).astype(np.uint8)
    found[1][found[1] == 2] = truth[1][truth[1] == 2] = 0
    found[2][found[2] == 2] = 1
    truth[3][truth[3] == 1] = 0
    return found, truth


def digest(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values)).hexdigest()


def _inside(target: str) -> None:
    """Runs in the reference's folder, and imports its modules."""
    import scipy.ndimage
    import scipy.signal

    vars(scipy.signal)["gaussian"] = scipy.signal.windows.gaussian
    for name, module in {
        "scipy.ndimage.interpolation": scipy.ndimage,
        "mlperf_loadgen": SimpleNamespace(
            ConstructSUT=lambda *_: None, ConstructQSL=lambda *_: None, DestroyQSL=lambda *_: None
        ),
        "pandas": ModuleType("pandas"),
    }.items():
        sys.modules[name] = module  # type: ignore[assignment]
    golden: dict[str, Any] = {"scans": {name: _preprocessed(name) for name in SCANS}}
    window, base = import_module("inference_utils"), import_module("base_SUT")
    golden["weights"] = window.gaussian_kernel(128, 16)[20, 40].tolist()
    system = base.BASE_3DUNET_SUT.__new__(base.BASE_3DUNET_SUT)
    system.do_infer = logits
    answer, _ = system.infer_single_query(volume()[None], "")
    golden["answer"] = {"shape": answer.shape, "dtype": str(answer.dtype), "sha256": digest(answer)}
    score = import_module("accuracy_kits").get_dice_score
    golden["dice"] = [score("", f[None], t[None])[1].tolist() for f, t in zip(*labels(), strict=True)]
    Path(target).write_text(json.dumps(golden, indent=1) + "\n")


def _preprocessed(name: str) -> dict[str, Any]:
    import nibabel

    image, label, affine = scan(name)
    with TemporaryDirectory() as folder:
        case = Path(folder, "raw", "case_00000")
        case.mkdir(parents=True)
        nibabel.Nifti1Image(image, affine).to_filename(case / "imaging.nii.gz")
        nibabel.Nifti1Image(label, affine).to_filename(case / "segmentation.nii.gz")
        options = SimpleNamespace(results_dir=f"{folder}/out", data_dir=f"{folder}/raw", calibration=False)
        reference = import_module("preprocess")
        entry = reference.Preprocessor(options).preprocess_case("case_00000")
        made = np.load(f"{folder}/out/case_00000.pkl", allow_pickle=True)
    return {
        "shape": entry["image_shape"],
        "image": digest(made[0]),
        "label": digest(made[1]),
        "reshaped_affine": entry["reshaped_affine"].tolist(),
        "zoom_factor": entry["zoom_factor"].tolist(),
    }


def main(reference: Path) -> None:
    FILE.parent.mkdir(exist_ok=True)
    places = os.pathsep.join([str(reference), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(Path(__file__).resolve()), "--inside", str(FILE.resolve())]
    subprocess.run(command, cwd=reference, env={**os.environ, "PYTHONPATH": places}, check=True)


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        _inside(sys.argv[2])
    else:
        main(Path(sys.argv[1]).resolve())
