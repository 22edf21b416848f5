"""Writes the miniature's files: `data/` as SQuAD v1.1, `model/` in each official checkpoint format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bench_bert.config import FILE, BertConfig, Tensors, write_config
from bench_bert.dataset import Dataset
from bench_bert.official import FAKE_QUANT, ONNX
from bench_bert.standins import SIZES, calibration, formats, generate
from loadgen.harness.standins.making import Writer, made_once, version_of, write_with

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.npz"
SOURCES = (
    WEIGHTS,
    HERE.parent / "config.py",
    *(HERE / f"{name}.py" for name in ("generate", "formats", "format_tensorflow", "calibration")),
)
"""All that the files follow from."""
_HEADS = 4  # the one size that the weights do not show


def prepare(folder: Path) -> None:
    """Fill `folder/data`, and `folder/model` with the sizes; at once if an earlier call of this version did.

    The weights are made when a backend wants them, by `write_weights`.
    """
    made_once(folder, version_of(*SOURCES), _make)


def _make(folder: Path) -> None:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    for name in WRITERS:
        (model / name).unlink(missing_ok=True)  # of another version
    generate.write(folder / "data")
    write_config(model / FILE, read_weights()[0])


def write_weights(path: Path) -> None:
    """The committed weights as the official file of that name. Raises InputError as `find_writer`."""
    write_with(WRITERS, path, *read_weights())


def write_int8(path: Path, config: BertConfig, tensors: Tensors, per_channel: bool = True) -> None:
    """The int8 file, with ranges measured in `model.onnx` beside it on 40 paragraphs of another seed."""
    exact = path.with_name(ONNX)
    if not exact.is_file():
        write_weights(exact)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        generate.write(folder / "data", generate.CALIBRATION_SEED, 40)
        (folder / "model").mkdir()
        write_config(folder / "model" / FILE, config)
        data = Dataset(folder, **SIZES)
    batches = (data.gather(np.array([index])) for index in range(data.total_count))
    formats.write_int8_onnx(path, config, tensors, calibration.activation_ranges(exact, batches), per_channel)


WRITERS: Mapping[str, Writer[[BertConfig, Tensors]]] = MappingProxyType(
    {**formats.WRITERS, FAKE_QUANT: Writer("onnxruntime", write_int8)}
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
