"""The `synthetic` profile: ResNet-50 with random weights on generated JPEG files, in the official formats.

Its speed is a full-size model's; its classes mean nothing.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench_resnet50 import synthetic_images
from bench_resnet50.config import FILE, ResNetConfig, read_config, write_config
from bench_resnet50.dataset import MAP
from bench_resnet50.format_ncnn import write_ncnn
from bench_resnet50.format_tensorflow import write_tensorflow
from bench_resnet50.formats import NCNN, ONNX, PYTORCH, TENSORFLOW, Tensors, random_tensors, write_onnx, write_pytorch
from loadgen.contracts import InputError
from loadgen.harness.assets.files import whole_file

RANDOM_WEIGHTS = "random_weights"
"""The model option that holds the seed: a backend whose weights are missing then makes them."""

SEED = 1

FILES = MappingProxyType({"onnxruntime": ONNX, "pytorch": PYTORCH, "tensorflow": TENSORFLOW, "ncnn": NCNN, "tvm": ONNX})
"""Backend -> the file it reads."""

WRITERS: Mapping[str, tuple[str, Callable[[Path, ResNetConfig, Tensors], None]]] = MappingProxyType(
    {
        ONNX: ("onnx", write_onnx),
        PYTORCH: ("torch", write_pytorch),
        TENSORFLOW: ("tensorflow", write_tensorflow),
        NCNN: ("ncnn", write_ncnn),
    }
)
"""File -> the package without which it is of no use, and how it is written."""


def prepare(folder: Path) -> None:
    """Fill `folder/data`, and `folder/model` with the sizes only: a backend makes the weights that it reads.

    Images that are there stay, however many.
    """
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    if not (model / FILE).is_file():
        write_config(model / FILE, ResNetConfig())
    if not (folder / "data" / MAP).is_file():
        _say(f"making {synthetic_images.COUNT:,} JPEG files in {folder / 'data'}")
        synthetic_images.write(folder / "data")


def synthesize(folder: Path, backend: str = "") -> None:
    """Make ahead what a run would make: data, and the weights file of one backend.

    No backend: the files of all whose packages are installed. Raises InputError as `write_weights`.
    """
    prepare(folder)
    for name in [FILES[backend]] if backend else [name for name in WRITERS if is_installed(name)]:
        provide(folder / "model" / name, {RANDOM_WEIGHTS: SEED})


def is_installed(file: str) -> bool:
    """Is the package there that this file is for?"""
    return importlib.util.find_spec(WRITERS[file][0]) is not None


def provide(path: Path, options: Mapping[str, Any]) -> None:
    """Make the weights file `path` if it is missing and the profile's model options want random ones."""
    if RANDOM_WEIGHTS in options and not path.is_file():
        write_weights(path, options[RANDOM_WEIGHTS])


def write_weights(path: Path, seed: int) -> None:
    """Random weights as the official file of that name, for the `resnet_config.json` beside it: 102 MB.

    Says so on stderr. Raises InputError for an unknown name or a package that is not installed.
    """
    if path.name not in WRITERS:
        raise InputError(f"{path.name} is no weights file of this benchmark: choose {', '.join(WRITERS)}")
    if not is_installed(path.name):
        raise InputError(f"{path.name} is made with the package {WRITERS[path.name][0]}, which is not installed")
    config = read_config(path.parent / FILE)
    began = time.monotonic()
    with whole_file(path) as part:
        WRITERS[path.name][1](part, config, random_tensors(config, seed))
    _say(f"made {path}: random weights from seed {seed}, in {time.monotonic() - began:.1f} s")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
