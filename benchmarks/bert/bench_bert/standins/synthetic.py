"""The `synthetic` profile: BERT-large with random weights and generated questions, in the official formats.

Its speed is a full-size model's; its answers mean nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bench_bert.config import FILE, BertConfig, Tensors, read_config, weight_shapes, write_config
from bench_bert.official import FAKE_QUANT
from bench_bert.standins import formats, questions
from loadgen.harness.standins.making import Writer, check_space, find_writer, tell, write_with, writing

SEED = 1


def prepare(folder: Path) -> None:
    """Fill `folder/data`, and `folder/model` with the sizes only: weights are made when a backend wants them.

    What is there stays.
    """
    model, data = folder / "model", folder / "data"
    if not (model / FILE).is_file():
        with writing(model):
            write_config(model / FILE, BertConfig())
    if not all((data / name).is_file() for name in ("vocab.txt", "dev-v1.1.json")):
        with writing(data):
            questions.write(data)


def write_weights(path: Path, seed: int = SEED) -> None:
    """Random weights as the official file of that name, for the `bert_config.json` beside it.

    Says on stderr what takes so long. Raises InputError as `find_writer`, or for a full disk.
    """
    find_writer(WRITERS, path)
    config = read_config(path.parent / FILE)
    size = 4 * sum(math.prod(shape) for shape in weight_shapes(config).values())
    check_space(path, size)
    tell(f"making {path}: random weights from seed {seed}, {size / 1e9:.2f} GB")
    began = time.monotonic()
    tensors = random_tensors(config, seed)
    tell(f"  {size / 4e6:.0f} M weights drawn; writing")
    write_with(WRITERS, path, config, tensors)
    tell(f"  done in {time.monotonic() - began:.0f} s")


def random_tensors(config: BertConfig, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of every shape from a seed, as a net is before training: no answer of it means anything."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in weight_shapes(config).items():
        values = rng.standard_normal(shape, np.float32)
        values *= 0.02 if "embeddings" in name else shape[-1] ** -0.5  # in place: BERT-large takes seconds
        values += name.endswith("LayerNorm.weight")
        tensors[name] = values
    return tensors


def _write_int8(path: Path, config: BertConfig, tensors: Tensors) -> None:
    """Nothing to calibrate: what enters a layer of random weights stays within 6 standard deviations."""
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight") and ".layer." in name]
    formats.write_int8_onnx(path, config, tensors, dict.fromkeys(layers, 6.0))


WRITERS: Mapping[str, Writer[[BertConfig, Tensors]]] = MappingProxyType(
    {**formats.WRITERS, FAKE_QUANT: Writer("onnx", _write_int8)}
)
