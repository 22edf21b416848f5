"""Writes the data of day 23 in its official files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_dlrm_v2.official import DENSE, LABELS, SPARSE
from loadgen.harness.files import whole_file


def write_day(
    data: Path,
    dense: npt.NDArray[np.float32],
    indices: Iterable[npt.NDArray[np.int32]],
    labels: npt.NDArray[np.int32],
    suffix: str = "",
) -> None:
    """dense [n, 13], indices [n, hot] of each table, taken one after the other, and labels [n].

    suffix: follows the three names (see `official.SAMPLE`).
    """
    data.mkdir(parents=True, exist_ok=True)
    _write_array(data / f"{DENSE}{suffix}.npy", dense)
    _write_array(data / f"{LABELS}{suffix}.npy", labels.reshape(-1, 1))
    with whole_file(data / f"{SPARSE}{suffix}.npz") as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for number, ids in enumerate(indices):
            with archive.open(f"{number}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, ids, allow_pickle=False)


def _write_array(path: Path, values: npt.NDArray[Any]) -> None:
    with whole_file(path) as part, part.open("wb") as file:  # numpy adds its ending to a name, but not to a file
        np.save(file, values, allow_pickle=False)
