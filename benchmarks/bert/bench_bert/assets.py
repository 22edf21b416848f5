"""Official weights and data: what they are, where they come from and where they go."""

from __future__ import annotations

from pathlib import Path

from bench_bert.official import FAKE_QUANT, ONNX, PYTORCH, TENSORFLOW
from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset

_ZENODO = "https://zenodo.org/records"
_SQUAD = "https://raw.githubusercontent.com/rajpurkar/SQuAD-explorer/eee5fdbf62f8613a7812b03419e6b29617b74fd1/dataset"
_LICENCE = "licence: see the record's page"

DATA = (
    Asset(
        path="data/dev-v1.1.json",
        address="https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v1.1.json",
        licence="CC BY-SA 4.0",
        bytes=4_854_279,
        sha256="95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9",
        mirrors=(f"{_SQUAD}/dev-v1.1.json",),
    ),
    Asset(
        path="data/vocab.txt",  # of uncased BERT
        address=f"{_ZENODO}/3733868/files/vocab.txt",
        licence="Apache-2.0",
        bytes=231_508,
        md5="64800d5d8528ce344256daf115d4965e",
        mirrors=("https://huggingface.co/bert-base-uncased/resolve/main/vocab.txt",),
    ),
)
WEIGHTS = (
    Asset(
        path=f"model/{ONNX}",
        address=f"{_ZENODO}/3733910/files/model.onnx",
        licence=_LICENCE,
        md5="819b25b19cd8e59080c10892689750ca",
        mirrors=("https://armi.in/files/model.onnx",),
        backends=("onnxruntime",),
        dtypes=("float32",),
    ),
    Asset(
        path=f"model/{FAKE_QUANT}",
        address=f"{_ZENODO}/3750364/files/bert_large_v1_1_fake_quant.onnx",
        licence=_LICENCE,
        md5="45f88ffb2915362242703c85c38ec2d4",
        mirrors=("https://mlperf-public.s3.us-west-2.amazonaws.com/bert_large_v1_1_fake_quant.onnx",),
        backends=("onnxruntime",),
        dtypes=("int8",),
    ),
    Asset(
        path=f"model/{PYTORCH}",
        address=f"{_ZENODO}/3733896/files/model.pytorch",
        licence=_LICENCE,
        md5="00fbcbfaebfa20d87ac9885120a6e9b4",
        mirrors=("https://armi.in/files/fp32/model.pytorch",),
        backends=("pytorch",),
    ),
    Asset(
        path=f"model/{TENSORFLOW}",
        address=f"{_ZENODO}/3939747/files/model.pb",
        licence=_LICENCE,
        md5="dd72de12e8226f25f0128a1a864b97ad",
        backends=("tensorflow",),
    ),
)
ASSETS = (*DATA, *WEIGHTS)
"""Checksums are those that MLCommons' own automation compares with, mirrors of weights the ones that it offers."""


def prepare(folder: Path) -> None:
    """Check that `folder` holds the official files: both of data, and weights of one backend.

    Raises InputError that lists what is missing, with its source.
    """
    wanted = [_line(asset, folder) for asset in DATA if not (folder / asset.path).is_file()]
    if not any((folder / asset.path).is_file() for asset in WEIGHTS):
        wanted.append(" or\n".join(_line(asset, folder) for asset in WEIGHTS))
    if wanted:
        raise InputError(
            "official files are missing. Get them by the command fetch, or name a folder with data/ and model/ "
            "by --data:\n" + "\n".join(wanted)
        )


def _line(asset: Asset, folder: Path) -> str:
    options = [f"--backend {name}" for name in asset.backends] + [f"--dtype {name}" for name in asset.dtypes]
    return f"  {folder / asset.path}  ({' '.join([*options, asset.address])})"
