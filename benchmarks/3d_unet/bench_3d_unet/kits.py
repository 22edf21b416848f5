"""KiTS19's files: `case_XXXXX/imaging.nii.gz` and `segmentation.nii.gz`, a CT volume and its labels."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_3d_unet.official import CLASSES
from bench_3d_unet.preprocess import Image, Label
from loadgen.contracts import InputError
from loadgen.harness.files import whole_file

IMAGING, SEGMENTATION = "imaging.nii.gz", "segmentation.nii.gz"
Affine: TypeAlias = "npt.NDArray[np.float64]"
"""[4, 4]: voxels to mm."""
_EXTENT_MM = 1, 3000
"""Of a side of a volume. What lies outside has its spacing in other units: it would shrink to nothing, or fill the
memory."""


class Scan(NamedTuple):
    """One case as its two files have it."""

    image: Image
    """Hounsfield units [D, H, W]."""
    label: Label
    """Classes, of the same shape."""
    spacing: tuple[float, float, float]
    """mm, of the image's header."""
    affine: Affine
    """Of the image's header."""


def read_scan(folder: Path) -> Scan:
    """One case. Raises InputError naming the file and the fault."""
    imaging, segmentation = folder / IMAGING, folder / SEGMENTATION
    for path in (imaging, segmentation):
        if not path.is_file():
            raise InputError(f"{path}: no such file. Get it by the command fetch, or put KiTS19's there")
    spacing = _spacing(imaging)
    voxels, affine = _read(imaging)
    labels, _ = _read(segmentation)
    image = voxels.astype(np.float32)
    broken = image.size - np.count_nonzero(np.isfinite(image))
    if broken:
        raise InputError(f"{imaging}: {broken:,} of {image.size:,} voxels are not finite numbers: get the file again")
    if labels.shape != image.shape:
        raise InputError(
            f"{segmentation}: has the shape {_times(labels.shape)}, but {imaging.name} has {_times(image.shape)}: "
            "get both files of one case"
        )
    extent = np.array(image.shape) * spacing
    if extent.min() < _EXTENT_MM[0] or extent.max() > _EXTENT_MM[1]:
        raise InputError(
            f"{imaging}: {_times(image.shape)} voxels that are {_times(spacing)} mm apart make {_times(extent)} mm, "
            f"expected {_EXTENT_MM[0]:,} to {_EXTENT_MM[1]:,} mm a side: get KiTS19's own file"
        )
    label = labels.astype(np.uint8)
    if (label != labels).any() or label.max(initial=0) >= len(CLASSES):
        raise InputError(f"{segmentation}: has other labels than 0, 1 and 2: get KiTS19's own file")
    return Scan(image, label, spacing, affine)


def _spacing(path: Path) -> tuple[float, float, float]:
    """As the header has it: nibabel puts a 1 in the place of a 0 in silence."""
    import nibabel

    with _named(path), gzip.open(path) as file:
        header = nibabel.Nifti1Header.from_fileobj(file, check=False)
    spacing = header["pixdim"][1:4].tolist()
    if not (np.isfinite(spacing).all() and min(spacing) > 0):
        raise InputError(f"{path}: voxels are {_times(spacing)} mm apart, expected three numbers above 0")
    return spacing[0], spacing[1], spacing[2]


def _read(path: Path) -> tuple[npt.NDArray[Any], Affine]:
    """The voxels in the file's own numbers, scaled if it says so, and the affine."""
    import nibabel

    with _named(path):
        file = nibabel.Nifti1Image.from_filename(path)
        voxels = np.asanyarray(file.dataobj)
    if voxels.ndim != 3 or not voxels.size:
        raise InputError(f"{path}: has the shape {_times(voxels.shape)}, expected a volume of three dimensions")
    if voxels.dtype.kind not in "iuf":
        raise InputError(f"{path}: its voxels are {voxels.dtype}, expected plain numbers: get KiTS19's own file")
    return voxels, np.asarray(file.affine)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What is wrong with a file becomes an InputError that names it."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    own = (ImageFileError, HeaderDataError, WrapStructError)
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error, *own) as error:
        raise InputError(f"{path}: not a whole NIfTI file ({error}): get it again") from error


def write_nifti(path: Path, values: npt.NDArray[Any], affine: Affine) -> None:
    """A NIfTI-1 file, compressed; byte for byte the same for the same values."""
    import nibabel

    data = nibabel.Nifti1Image(values, affine).to_bytes()
    with whole_file(path) as part:
        part.write_bytes(gzip.compress(data, 1, mtime=0))


def _times(sizes: Any) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
