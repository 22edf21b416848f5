"""Official weights and data: what they are, where they come from and where they go."""

from __future__ import annotations

from pathlib import Path

from bench_gpt_j.official import BIN_INDEX, CONFIG, DATA, INDEX, TOKENIZER
from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset

_FOLDER = (
    "fetch the folder that https://inference.mlcommons-storage.org/metadata/gpt-j-model-checkpoint.uri names, by "
    "MLCommons' r2-downloader, which checks it: the fine-tuned checkpoint-final, not EleutherAI's base model"
)
_DATA = (
    "make it by the reference's download_cnndm.py (language/gpt-j): the 13,368 articles of cnn_dailymail 3.0.0's "
    "validation split, whose texts nobody may pass on"
)

DATA_FILE = Asset(path=f"data/{DATA}", address="", licence="CNN/DailyMail: texts of their publishers", gate=_DATA)
TOKENIZER_FILE = Asset(
    path=f"model/{TOKENIZER}",
    address=f"https://huggingface.co/EleutherAI/gpt-j-6b/resolve/main/{TOKENIZER}",
    licence="Apache-2.0",
    gate="without an account; fine-tuning did not change it",
)
CONFIG_FILE = Asset(path=f"model/{CONFIG}", address="", licence="Apache-2.0", gate=_FOLDER, backends=("pytorch",))
INDEX_FILE = Asset(
    path=f"model/{INDEX}",
    address="",
    licence="Apache-2.0",
    gate=f"{_FOLDER}; {BIN_INDEX} and its files are read as well",
    backends=("pytorch",),
)
READ = (DATA_FILE, TOKENIZER_FILE)
"""By every backend: the articles, and the tokenizer."""
ASSETS = (*READ, CONFIG_FILE, INDEX_FILE)


def prepare(folder: Path) -> None:
    """Check that `folder` holds the official data and tokenizer; a backend that reads weights asks for those.

    Raises InputError that lists what is missing, with its source.
    """
    if all((folder / asset.path).is_file() for asset in READ):
        return
    wanted = [f"  {folder / asset.path}  ({_source(asset)})" for asset in ASSETS if not (folder / asset.path).is_file()]
    raise InputError(
        "official files are missing. Get them by the command fetch, or name a folder with data/ and model/ by --data:\n"
        + "\n".join(wanted)
    )


def _source(asset: Asset) -> str:
    return "; ".join(filter(None, (asset.address, asset.gate)))
