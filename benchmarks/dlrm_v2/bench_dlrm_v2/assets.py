"""Official weights and data: what they are, where they come from and where they go."""

from __future__ import annotations

from pathlib import Path

from bench_dlrm_v2.official import DENSE, LABELS, METADATA, SNAPSHOT, SPARSE
from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset

_HOST = "https://inference.mlcommons-storage.org/metadata"
_DATA = f"{_HOST}/dlrm-v2-preprocessed-dataset"  # 169 GB
_WEIGHTS = f"{_HOST}/dlrm-v2-model-weights"  # 98 GB
_CRITEO = "Criteo's terms: research, not commercial use"

ASSETS = (
    Asset(
        path=f"data/{DENSE}.npy",
        address="",
        licence=_CRITEO,
        md5="cdf7af87cbc7e9b468c0be46b1767601",
        listing=_DATA,
    ),
    Asset(
        path=f"data/{LABELS}.npy",
        address="",
        licence=_CRITEO,
        md5="dd68f93301812026ed6f58dfb0757fa7",
        listing=_DATA,
    ),
    Asset(
        path=f"data/{SPARSE}.npz",
        address="",
        licence=_CRITEO,
        md5="c46b7e31ec6f2f8768fa60bdfc0f6e40",
        listing=_DATA,
    ),
    Asset(
        path=f"model/{SNAPSHOT}/{METADATA}",  # which lists all others, so that a missing one is noticed
        address="",
        licence="MLCommons'",
        md5="a145bf8ba38d71137f8601876896d8d9",
        listing=_WEIGHTS,
    ),
)
"""Checksums are those that MLCommons' own automation compares with."""


def prepare(folder: Path) -> None:
    """Check that `folder` holds the official files. Raises InputError that lists what is missing, with its source."""
    wanted = [
        f"  {folder / asset.path}  ({asset.listing}.uri)" for asset in ASSETS if not (folder / asset.path).is_file()
    ]
    if wanted:
        raise InputError(
            "official files are missing. Get them by the command fetch, or name a folder with data/ and model/ by "
            "--data:\n" + "\n".join(wanted)
        )
