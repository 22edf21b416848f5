"""Official weights and data: what they are, where they come from and where they go."""

from __future__ import annotations

from pathlib import Path

from bench_llama2_70b.official import CONFIG, DATA, INDEX, TOKENIZER
from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset

_SHARDS = 15
_LLAMA = "https://huggingface.co/meta-llama/Llama-2-70b-chat-hf"
_LICENCE = "Llama 2 Community License"
_ACCEPT = f"accept Meta's licence at {_LLAMA}, then put an access token in HF_TOKEN"


def _from_llama(name: str, backends: tuple[str, ...] = ()) -> Asset:
    address = f"{_LLAMA}/resolve/main/{name}"
    return Asset(f"model/{name}", address, _LICENCE, gate=_ACCEPT, token="HF_TOKEN", backends=backends)


ORCA = Asset(
    path=f"data/{DATA}",
    address="",
    licence="MIT",
    gate=(
        "fetch the folder that https://inference.mlcommons-storage.org/metadata/llama-2-70b-open-orca-dataset.uri "
        "names, by MLCommons' r2-downloader, which checks it"
    ),
)
READ = (ORCA, _from_llama(TOKENIZER))
"""By every backend: the prompts, and the tokenizer that answers are scored with."""
WEIGHTS = tuple(
    _from_llama(name, ("pytorch",))
    for name in (CONFIG, INDEX, *(f"model-{n:05}-of-{_SHARDS:05}.safetensors" for n in range(1, _SHARDS + 1)))
)
ASSETS = (*READ, *WEIGHTS)


def prepare(folder: Path) -> None:
    """Check that `folder` holds the official data and tokenizer; a backend that reads weights asks for those.

    Raises InputError that lists what is missing, with its source.
    """
    if all((folder / asset.path).is_file() for asset in READ):
        return
    wanted = [f"  {folder / asset.path}  ({_source(asset)})" for asset in ASSETS if not (folder / asset.path).is_file()]
    raise InputError(
        "official files are missing. Get them by the command fetch, or name a folder with data/ and model/ by --data "
        "(--backend endpoint reads no weights):\n" + "\n".join(wanted)
    )


def _source(asset: Asset) -> str:
    return "; ".join(filter(None, (asset.address, asset.gate)))
