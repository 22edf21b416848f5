"""The `synthetic` profile: BERT-large with random weights and generated questions, in the official formats.

Its speed is a full-size model's; its answers mean nothing.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from bench_bert import synthetic_squad
from bench_bert.config import BertConfig, read_config, weight_shapes, write_config
from bench_bert.format_tensorflow import write_tensorflow
from bench_bert.formats import FAKE_QUANT, Tensors, random_tensors, write_int8_onnx, write_onnx, write_pytorch
from loadgen.contracts import InputError
from loadgen.harness.assets.files import whole_file

SEED = 1

FILES = MappingProxyType({"onnxruntime": "model.onnx", "pytorch": "model.pytorch", "tensorflow": "model.pb"})
"""Backend -> the file it reads in FP32."""


def _write_int8(path: Path, config: BertConfig, tensors: Tensors) -> None:
    """Nothing to calibrate: what enters a layer of random weights stays within 6 standard deviations."""
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight") and ".layer." in name]
    write_int8_onnx(path, config, tensors, dict.fromkeys(layers, 6.0))


WRITERS: Mapping[str, tuple[str, Callable[[Path, BertConfig, Tensors], None]]] = MappingProxyType(
    {
        "model.onnx": ("onnx", write_onnx),
        "model.pytorch": ("torch", write_pytorch),
        "model.pb": ("tensorflow", write_tensorflow),
        FAKE_QUANT: ("onnx", _write_int8),
    }
)
"""File -> the package that writes it, and how."""


def prepare(folder: Path) -> None:
    """Fill `folder/data`, and `folder/model` with the sizes only: a backend makes the weights that it reads."""
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    if not (model / "bert_config.json").is_file():
        write_config(model / "bert_config.json", BertConfig())
    if not all((folder / "data" / name).is_file() for name in ("vocab.txt", "dev-v1.1.json")):
        synthetic_squad.write(folder / "data")


def synthesize(folder: Path, backend: str = "") -> None:
    """Make ahead what a run in FP32 would make: data, and the weights file of one backend.

    No backend: the files of all whose packages are installed. Raises InputError as `write_weights`.
    """
    prepare(folder)
    for name in [backend] if backend else [name for name in FILES if _installed(FILES[name])]:
        if not (folder / "model" / FILES[name]).is_file():
            write_weights(folder / "model" / FILES[name])


def _installed(file: str) -> bool:
    return importlib.util.find_spec(WRITERS[file][0]) is not None


def write_weights(path: Path, seed: int = SEED) -> None:
    """Random weights as the official file of that name, for the `bert_config.json` beside it.

    Says on stderr what takes so long. Raises InputError for an unknown name or a full disk.
    """
    if path.name not in WRITERS:
        raise InputError(f"{path.name} is no weights file of this benchmark: choose {', '.join(WRITERS)}")
    if not _installed(path.name):
        raise InputError(f"{path.name} is made with the package {WRITERS[path.name][0]}, which is not installed")
    config = read_config(path.parent / "bert_config.json")
    size = 4 * sum(math.prod(shape) for shape in weight_shapes(config).values())
    free = shutil.disk_usage(path.parent).free
    if free < 1.05 * size:
        raise InputError(
            f"{path}: needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: make room, "
            "or name a folder on another disk by --data"
        )
    _say(f"making {path}: random weights from seed {seed}, {size / 1e9:.2f} GB")
    began = time.monotonic()
    tensors = random_tensors(config, seed)
    _say(f"  {sum(value.size for value in tensors.values()) / 1e6:.0f} M weights drawn; writing")
    with whole_file(path) as part:
        WRITERS[path.name][1](part, config, tensors)
    _say(f"  done in {time.monotonic() - began:.0f} s")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
