"""The miniature's data: phantoms of a small abdomen as computed tomography shows it, in KiTS19's files.

A body of muscle in fat, a spine behind, a liver and two kidneys beside it, with up to three tumours on the kidneys.
What makes it hard: the liver is as bright as the kidneys, and so are loops of bowel, which are as thick but longer;
a vessel and spots in the liver are as bright as a tumour; cysts are dark holes of a kidney, and count as kidney.
Slices are 1 to 4 mm apart, so that edges are blurred along them, and there is noise. Everything follows from a seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_3d_unet.kits import IMAGING, SEGMENTATION, write_nifti
from bench_3d_unet.preprocess import SPACING, Image, Label
from bench_3d_unet.standins import CASES

SEED = 2019
"""Of the miniature's cases; training has others."""
AIR, FAT, MUSCLE, LIVER, KIDNEY, TUMOR, CYST, BONE = -1000, -90, 55, 150, 165, 238, 8, 290
"""Hounsfield units, with contrast agent."""
SIDES = (48, 64)
"""Voxels that a side may have after preprocessing: volumes have 8 to 27 windows."""
Sides: TypeAlias = "tuple[int, int, int]"
Spacing: TypeAlias = "tuple[float, float, float]"
Mask: TypeAlias = "npt.NDArray[np.bool_]"
Point: TypeAlias = "npt.NDArray[np.float64]"
"""mm from the middle of the volume: up, back, left."""


class Scan(NamedTuple):
    """One case as a scanner gives it."""

    image: Image
    """Hounsfield units [D, H, W], whole numbers."""
    label: Label
    spacing: Spacing
    """mm."""


def write(folder: Path, seed: int = SEED, cases: tuple[str, ...] = CASES) -> None:
    """`case_XXXXX/imaging.nii.gz` and `segmentation.nii.gz` in `folder`, which need not be there."""
    for number, case in enumerate(cases):
        (folder / case).mkdir(parents=True, exist_ok=True)
        write_case(folder / case, phantom(seed, number))


def write_case(folder: Path, scan: Scan) -> None:
    """Two files, as KiTS19 has them: axes run from head to feet, from back to front and from left to right."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = (-side for side in scan.spacing)
    affine[3, 3] = 1
    write_nifti(folder / IMAGING, scan.image.astype(np.int16), affine)
    write_nifti(folder / SEGMENTATION, scan.label, affine)


def phantom(seed: int, number: int, sides: Sides | None = None, spacing: Spacing | None = None) -> Scan:
    """One case. sides: about how many voxels it has after preprocessing; spacing: mm; drawn, if they are not given."""
    rng = np.random.default_rng([seed, number])
    if spacing is None:
        thick, fine = (float(rng.choice(steps)) for steps in ([1.0, 1.5, 2.5, 3.0, 4.0], [0.7, 0.8, 0.9]))
        spacing = (thick, fine, fine)
    if sides is None:  # not whole: cropping and filling make it so
        high, deep, wide = (rng.choice(SIDES, 3) + rng.integers(-7, 8, 3)).tolist()
        sides = (high, deep, wide)
    extent = np.array(sides) * SPACING
    shape = np.round(extent / spacing).astype(int)
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    body = _Body(list(np.meshgrid(*axes, indexing="ij", sparse=True)), extent, rng)
    body.fill()
    return Scan(_scanned(body.image, spacing, rng), body.label, spacing)


def _scanned(image: Image, spacing: Spacing, rng: np.random.Generator) -> Image:
    """Blurred, as by rays and slices of a finite width, and with noise that neighbours share in part."""
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(image, [0.6, *(0.7 / step for step in spacing[1:])])
    grain = gaussian_filter(rng.standard_normal(image.shape, np.float32), [0, 0.7, 0.7])
    noise = rng.uniform(18, 30)
    scanned: Image = np.round(blurred + grain / grain.std() * noise).astype(np.float32)
    return scanned


class _Body:
    """Fills an image and its labels with one organ after another; later ones lie over earlier ones."""

    def __init__(self, grid: list[npt.NDArray[np.float64]], extent: Point, rng: np.random.Generator) -> None:
        self.grid, self.extent, self.rng = grid, extent, rng
        shape = np.broadcast_shapes(*(axis.shape for axis in grid))
        self.image = np.full(shape, AIR, np.float32)
        self.label = np.zeros(shape, np.uint8)

    def fill(self) -> None:
        rng, (_, depth, width) = self.rng, self.extent
        self.paint(self.tube([0, 0, 0], [depth * 0.49, width * 0.49]), FAT)
        inside = self.tube([0, 0, 0], [depth * 0.43, width * 0.43])
        self.paint(inside, MUSCLE)
        self.paint(self.tube([0, depth * 0.28, 0], [5.5, 5.5]), BONE)
        for _ in range(rng.integers(1, 3)):  # bowel: as thick as a kidney, and much longer
            place = [0, rng.uniform(-0.3, -0.1) * depth, rng.uniform(-0.25, 0.25) * width]
            self.paint(self.tube(place, rng.uniform(4.5, 7, 2), tilt=rng.uniform(-0.3, 0.3)) & inside, KIDNEY)
        self.liver(inside)
        self.paint(self.tube([0, depth * 0.14, rng.uniform(-3, 3)], [3.5, 3.5]), TUMOR)  # the great vessel
        kidneys = [self.kidney(side) for side in (-1, 1)]
        for _ in range(rng.integers(0, 4)):
            self.tumor(kidneys[rng.integers(2)])
        for kidney in kidneys:
            if rng.random() < 0.3:
                self.cyst(kidney)

    def liver(self, inside: Mask) -> None:
        rng, (height, depth, width) = self.rng, self.extent
        middle = np.array([-0.25 * height, -0.12 * depth, 0.24 * width])
        liver = self.ellipsoid(middle, [0.3 * height, 0.2 * depth, 0.2 * width]) & inside
        self.paint(liver, LIVER)
        for _ in range(rng.integers(1, 4)):
            spot = self.ellipsoid(middle + rng.uniform(-9, 9, 3), rng.uniform(4, 7, 3))
            self.paint(spot & liver, TUMOR)

    def kidney(self, side: int) -> tuple[Point, Point]:
        """side: -1 or 1. Returns its middle and half axes."""
        rng, (height, depth, width) = self.rng, self.extent
        middle = np.array([rng.uniform(-0.12, 0.2) * height, rng.uniform(0.08, 0.16) * depth, side * 0.25 * width])
        axes = rng.uniform([13, 7.5, 6.5], [18, 10, 8.5])
        tilt = rng.uniform(-0.2, 0.2, 2)
        self.paint(self.ellipsoid(middle, axes, tilt), KIDNEY + rng.uniform(-12, 12), 1)
        return middle, axes

    def tumor(self, kidney: tuple[Point, Point]) -> None:
        """On the surface of a kidney, and half out of it."""
        middle, axes = kidney
        radius = self.rng.uniform(4.5, 8.5)
        growth = self.ellipsoid(middle + self.towards() * axes * 0.85, radius * self.rng.uniform(0.85, 1.15, 3))
        self.paint(growth, TUMOR + self.rng.uniform(-15, 15), 2)

    def cyst(self, kidney: tuple[Point, Point]) -> None:
        middle, axes = kidney
        hole = self.ellipsoid(middle + self.towards() * axes * 0.6, [self.rng.uniform(3, 5)] * 3)
        self.paint(hole & (self.label == 1), CYST)

    def towards(self) -> Point:
        direction = self.rng.standard_normal(3)
        return direction / np.linalg.norm(direction)

    def ellipsoid(self, middle: Point, axes: npt.ArrayLike, tilt: npt.ArrayLike = (0, 0)) -> Mask:
        """tilt: how far rows and columns move with each mm between slices."""
        up, back, left = (axis - at for axis, at in zip(self.grid, middle, strict=True))
        tilts, (high, deep, wide) = np.asarray(tilt), np.asarray(axes)
        inside: Mask = (up / high) ** 2 + ((back - tilts[0] * up) / deep) ** 2 + (
            (left - tilts[1] * up) / wide
        ) ** 2 < 1
        return inside

    def tube(self, middle: npt.ArrayLike, axes: npt.ArrayLike, tilt: float = 0.0) -> Mask:
        """Through all slices. axes: half its depth and width."""
        up, back, left = (axis - at for axis, at in zip(self.grid, np.asarray(middle), strict=True))
        deep, wide = np.asarray(axes)
        inside: Mask = (back / deep) ** 2 + ((left - tilt * up) / wide) ** 2 < 1
        return np.broadcast_to(inside, self.image.shape)

    def paint(self, where: Mask, units: float, label: int | None = None) -> None:
        self.image[where] = units
        if label is not None:
            self.label[where] = label
