"""Official weights and data: what they are, where they come from and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench_resnet50.dataset import MAP
from bench_resnet50.official import NCNN, ONNX, PYTORCH, TENSORFLOW
from loadgen.contracts import InputError
from loadgen.harness.assets import archive
from loadgen.harness.assets.asset import Asset
from loadgen.harness.files import whole_file

_ZENODO = "https://zenodo.org/records"
_CTUNING = "https://huggingface.co/ctuning"
_LICENCE = "licence: see the record's page"

IMAGES = Asset(
    path="data/ILSVRC2012_img_val.tar",
    address="",
    licence="for non-commercial research",
    bytes=6_744_924_160,
    md5="29b22e2961454d5413ddabcf34fc5622",
    instead=(f"data/{MAP}",),
    gate="register at image-net.org, accept its terms and download the validation images of ILSVRC 2012",
)
CLASSES = Asset(
    path="data/caffe_ilsvrc12.tar.gz",  # its val.txt becomes val_map.txt
    address="http://dl.caffe.berkeleyvision.org/caffe_ilsvrc12.tar.gz",
    licence="not stated",
    bytes=17_858_008,
    md5="f963098ea0e785a968ca1eb634003a90",
    sha256="e35c0c1994a21f7d8ed49d01881ce17ab766743d3b0372cdc0183ff4d0dfc491",
    instead=(f"data/{MAP}",),
    mirrors=("https://www.dropbox.com/s/92n2fyej3lzy3s3/caffe_ilsvrc12.tar.gz?dl=1",),
)
DATA = (IMAGES, CLASSES)
FULL = (
    *DATA,
    Asset(
        path=f"model/{ONNX}",
        address=f"{_ZENODO}/4735647/files/{ONNX}",
        licence=_LICENCE,
        md5="f6a4da60cd5f084d97efc2c1ddb10beb",
        mirrors=(f"{_CTUNING}/mlperf-inference-resnet50-onnx-fp32-imagenet2012-v1.0/resolve/main/{ONNX}",),
        backends=("onnxruntime", "tvm"),
    ),
    Asset(
        path=f"model/{TENSORFLOW}",
        address=f"{_ZENODO}/2535873/files/{TENSORFLOW}",
        licence=_LICENCE,
        md5="7b94a2da05dd30f6c0af23a46bc08886",
        backends=("tensorflow",),
    ),
)
TORCHVISION = (
    *DATA,
    Asset(
        path=f"model/{PYTORCH}",
        address=f"{_ZENODO}/4588417/files/{PYTORCH}",
        licence=_LICENCE,
        bytes=102_502_400,
        md5="9e9c86b324d80e65229fab49b8d9a8e8",
        sha256="19c8e3572231adff6824a2da93fd67b5986919a2e65f8b6007eab4edee220097",
        mirrors=(f"https://download.pytorch.org/models/{PYTORCH}",),
        backends=("pytorch",),
    ),
    Asset(
        path=f"model/{NCNN}",
        address=f"{_ZENODO}/8073420/files/{NCNN}",
        licence=_LICENCE,
        md5="f9ba6c4d7f66348e6d24c06bfe3f4ae8",
        backends=("ncnn",),
    ),
    Asset(
        path=f"model/{Path(NCNN).with_suffix('.bin')}",
        address=f"{_ZENODO}/8073420/files/{Path(NCNN).with_suffix('.bin')}",
        licence=_LICENCE,
        md5="0360777ab2178a65a8f78c35a7d619e0",
        backends=("ncnn",),
    ),
)
"""MD5 checksums are those that MLCommons' own automation compares with; that of the images is ImageNet's.

Mirrors are that automation's, but torchvision's own address of its weights.
"""


def _prepare(assets: Sequence[Asset], folder: Path) -> None:
    """Check that `folder` holds the data, unpacked or not, and weights of one backend; unpack what is not.

    Raises InputError that lists what is missing, with its source.
    """
    unpacked = (folder / "data" / MAP).is_file()
    wanted = [_line(asset, folder) for asset in DATA if not unpacked and not (folder / asset.path).is_file()]
    weights = [asset for asset in assets if asset not in DATA]
    if not any((folder / asset.path).is_file() for asset in weights):
        wanted.append(" or\n".join(_line(asset, folder) for asset in weights))
    if wanted:
        raise InputError(
            "official files are missing. Get them by the command fetch, or name a folder with data/ and model/ "
            f"by --data; data/ may hold the images and {MAP} instead:\n" + "\n".join(wanted)
        )
    if not unpacked:
        unpack(folder / "data")


prepare_full = partial(_prepare, FULL)
prepare_torchvision = partial(_prepare, TORCHVISION)


def unpack(data: Path) -> None:
    """`val/*.JPEG` and `val_map.txt` from the two archives. Raises InputError naming one that is damaged."""
    images, classes = (data / Path(asset.path).name for asset in DATA)
    listed = archive.read(classes, "val.txt")  # seconds; the other takes minutes
    archive.extract(images, data / "val")
    with whole_file(data / MAP) as part:
        part.write_text("".join(f"val/{line}\n" for line in listed.decode().splitlines()))


def _line(asset: Asset, folder: Path) -> str:
    options = [f"--backend {name}" for name in asset.backends]
    return f"  {folder / asset.path}  ({' '.join([*options, asset.address or asset.gate])})"
