"""Official weights and data: what they are, where they come from and where they go.

The images themselves are 24,781 files, which `images.py` gets by the names that the annotations list.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from bench_retinanet.official import (
    ANNOTATIONS,
    ANNOTATIONS_ARCHIVE,
    ARCHIVE,
    CALIBRATION,
    ONNX,
    PICKLED,
    PYTORCH,
)
from loadgen.contracts import InputError
from loadgen.harness.assets import archive
from loadgen.harness.assets.asset import Asset
from loadgen.harness.files import whole_file

_ZENODO = "https://zenodo.org/records"
_GITHUB = "https://github.com/mlcommons/inference/releases/download"
_LISTS = "https://raw.githubusercontent.com/mlcommons/inference/v4.0/calibration/openimages"
_LICENCE = "licence: see the record's page"

BOXES = Asset(
    path=f"data/{ANNOTATIONS_ARCHIVE}",  # its JSON file becomes annotations/openimages-mlperf.json
    address=f"{_GITHUB}/v2.1/{ANNOTATIONS_ARCHIVE}",
    licence="CC BY 4.0",
    md5="817fd8da3aeeb0575f1e2d2926b15e68",
    instead=(f"data/{ANNOTATIONS}",),
)
CALIBRATION_LIST = Asset(
    path=f"data/{CALIBRATION}",
    address=f"{_LISTS}/{CALIBRATION}",
    licence="Apache-2.0",
    md5="5c3196ddcec4605c6a9fcf004d9615e6",
)
WEIGHTS = (
    Asset(
        path=f"model/{ONNX}",
        address=f"{_ZENODO}/6617879/files/{ONNX}",
        licence=_LICENCE,
        md5="4544f4e56e0a4684215831cc937ea45c",
        mirrors=(f"https://armi.in/files/{ONNX}", f"https://storage.googleapis.com/resnet50_assets/{ONNX}"),
        backends=("onnxruntime",),
    ),
    Asset(
        path=f"model/{ARCHIVE}",  # its file becomes model/retinanet_model_10.pth
        address=f"{_ZENODO}/6605272/files/{ARCHIVE}",
        licence=_LICENCE,
        md5="2037c152a6be18e371ebec654314f7e0",
        backends=("pytorch",),
        instead=(f"model/{PYTORCH}", f"model/{PICKLED}"),
    ),
)
FULL = (BOXES, CALIBRATION_LIST, *WEIGHTS)
"""Checksums are those that MLCommons' own automation compares with, mirrors the ones that it offers."""


def prepare(folder: Path) -> None:
    """Check that `folder` holds the annotations and weights of one backend, packed or not, and unpack what is not.

    Raises InputError that lists what is missing, with its source. Missing images are the dataset's to report.
    """
    wanted = [] if _is_there(BOXES, folder) else [_line(BOXES, folder)]
    if not any(_is_there(asset, folder) for asset in WEIGHTS):
        wanted.append(" or\n".join(_line(asset, folder) for asset in WEIGHTS))
    if wanted:
        wanted.append(f"{_line(CALIBRATION_LIST, folder)}, for quantising only")
        raise InputError(
            "official files are missing. Get them by the command fetch, or name a folder with data/ and model/ "
            "by --data; then the images: `python -m bench_retinanet.images FOLDER/data`\n" + "\n".join(wanted)
        )
    unpack_annotations(folder / "data")
    unpack_weights(folder / "model")


def _is_there(asset: Asset, folder: Path) -> bool:
    return any((folder / path).is_file() for path in (asset.path, *asset.instead))


def unpack_annotations(data: Path) -> None:
    """`annotations/openimages-mlperf.json` from the archive, whose JSON file goes by another name; if not there yet.

    Raises InputError naming an archive that is damaged."""
    target = data / ANNOTATIONS
    if not target.is_file():
        content = archive.read(data / ANNOTATIONS_ARCHIVE, _only(data / ANNOTATIONS_ARCHIVE, ".json"))
        json.loads(content)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as part:
            part.write_bytes(content)


def unpack_weights(model: Path) -> None:
    """`retinanet_model_10.pth` from the archive, if one is there and it is not. Raises InputError as above."""
    if (model / ARCHIVE).is_file() and not (model / PYTORCH).is_file():
        content = archive.read(model / ARCHIVE, _only(model / ARCHIVE, ".pth"))
        with whole_file(model / PYTORCH) as part:
            part.write_bytes(content)


def _only(path: Path, suffix: str) -> str:
    """The name of the archive's file with this ending."""
    try:
        with zipfile.ZipFile(path) as opened:
            names = [name for name in opened.namelist() if name.endswith(suffix) and "__MACOSX" not in name]
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is damaged ({error}): fetch it again") from error
    if len(names) != 1:
        raise InputError(f"{path} holds {len(names)} files that end with {suffix}, expected one: fetch it again")
    return names[0]


def _line(asset: Asset, folder: Path) -> str:
    options = [f"--backend {name}" for name in asset.backends]
    return f"  {folder / asset.path}  ({' '.join([*options, asset.address])})"
