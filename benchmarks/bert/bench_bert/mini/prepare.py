"""Writes the miniature's files: `data/` as SQuAD v1.1, `model/` in each official checkpoint format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bench_bert.calibration import activation_ranges
from bench_bert.config import BertConfig, write_config
from bench_bert.dataset import Dataset
from bench_bert.format_tensorflow import write_tensorflow
from bench_bert.formats import FAKE_QUANT, Tensors, write_int8_onnx, write_onnx, write_pytorch
from bench_bert.mini import SIZES, generate
from loadgen.contracts import InputError
from loadgen.harness.assets.files import whole_file

WEIGHTS = Path(__file__).with_name("weights.npz")
_HEADS = 4  # the one size that the weights do not show


def prepare(folder: Path) -> None:
    """Fill `folder/data`, and `folder/model` with the sizes; at once if an earlier call of this version did.

    The weights are made by the backend that reads them, through `write_weights`.
    """
    stamp, version, model = folder / "made-from", _version(), folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    if stamp.is_file() and stamp.read_text() == version:
        return
    for name in WRITERS:
        (model / name).unlink(missing_ok=True)  # of another version
    generate.write(folder / "data")
    write_config(model / "bert_config.json", read_weights()[0])
    stamp.write_text(version)


def write_weights(path: Path) -> None:
    """The committed weights as the official file of that name. Raises InputError for an unknown name."""
    if path.name not in WRITERS:
        raise InputError(f"{path.name} is no weights file of this benchmark: choose {', '.join(WRITERS)}")
    with whole_file(path) as part:
        WRITERS[path.name](part, *read_weights())


def write_int8(path: Path, config: BertConfig, tensors: Tensors, per_channel: bool = True) -> None:
    """The int8 file, with ranges measured in `model.onnx` beside it on 40 paragraphs of another seed."""
    exact = path.with_name("model.onnx")
    if not exact.is_file():
        write_weights(exact)
    with TemporaryDirectory() as temporary:
        generate.write(Path(temporary), generate.CALIBRATION_SEED, 40)
        data = Dataset(Path(temporary), **SIZES)
    batches = (data.gather([index]) for index in range(data.total_count))
    write_int8_onnx(path, config, tensors, activation_ranges(exact, batches), per_channel)


WRITERS: Mapping[str, Callable[[Path, BertConfig, Tensors], None]] = MappingProxyType(
    {"model.onnx": write_onnx, "model.pytorch": write_pytorch, "model.pb": write_tensorflow, FAKE_QUANT: write_int8}
)


def read_weights() -> tuple[BertConfig, dict[str, npt.NDArray[np.float32]]]:
    """The committed weights by their official names, and the sizes that follow from their shapes."""
    with np.load(WEIGHTS) as stored:
        tensors = {name: stored[name].astype(np.float32) for name in stored.files}
    words = tensors["bert.embeddings.word_embeddings.weight"]
    config = BertConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        num_hidden_layers=len({name.split(".")[3] for name in tensors if ".layer." in name}),
        num_attention_heads=_HEADS,
        intermediate_size=len(tensors["bert.encoder.layer.0.intermediate.dense.bias"]),
        max_position_embeddings=SIZES["max_seq_length"],
    )
    return config, tensors


def _version() -> str:
    """Of everything that the files follow from."""
    package = Path(__file__).parent
    parts = [package.parent / f"{name}.py" for name in ("config", "formats", "format_tensorflow", "calibration")]
    sources = [WEIGHTS, package / "generate.py", *parts]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
