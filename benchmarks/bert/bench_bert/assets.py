"""Official weights and data: what they are, where they come from and where they go."""

from __future__ import annotations

from pathlib import Path

from bench_bert.config import BertConfig, write_config
from loadgen.contracts import InputError

DATA = {
    "dev-v1.1.json": "SQuAD v1.1 development set, from the SQuAD site (CC BY-SA 4.0)",
    "vocab.txt": "in bert_tf_v1_1_large_fp32_384_v2.zip, Zenodo record 3733868",
}
WEIGHTS = {
    "model.onnx": "backend onnxruntime: Zenodo record 3733910",
    "model.pytorch": "backend pytorch: Zenodo record 3733896",
    "model.pb": "backend tensorflow: Zenodo record 3939747",
}
"""Zenodo records are at https://zenodo.org/records/NUMBER."""


def prepare(folder: Path) -> None:
    """Check that `folder` holds the official files; both data files and weights of one backend.

    Writes `bert_config.json` if it is not there: the official weights are of the sizes that
    `BertConfig` has by default. Raises InputError that lists what is missing, with its source.
    """
    data, model = folder / "data", folder / "model"
    wanted = [f"  {data / name}  ({source})" for name, source in DATA.items() if not (data / name).is_file()]
    if not any((model / name).is_file() for name in WEIGHTS):
        choice = " or\n".join(f"  {model / name}  ({source})" for name, source in WEIGHTS.items())
        wanted.append(choice)
    if wanted:
        raise InputError(
            "official files are missing. Put them there, or name a folder with data/ and model/ by --data:\n"
            + "\n".join(wanted)
            + "\nZenodo records are at https://zenodo.org/records/NUMBER"
        )
    if not (model / "bert_config.json").is_file():
        write_config(model / "bert_config.json", BertConfig())
