"""Writes the miniature's files: `data/` as ImageNet's validation set, `model/` in each official format."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.mini import SIZES, generate
from bench_resnet50.synthetic import WRITERS, is_installed
from loadgen.harness.assets.files import whole_file

WEIGHTS = Path(__file__).with_name("weights.npz")


def prepare(folder: Path) -> None:
    """Fill `folder/data` and `folder/model`; at once if an earlier call of this version did.

    A format whose package is not installed is left out: its backend cannot run either.
    """
    stamp, version = folder / "made-from", _version()
    known = stamp.is_file() and stamp.read_text() == version
    if not known:
        stamp.unlink(missing_ok=True)
        generate.write(folder / "data")
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    config, tensors = read_weights()
    write_config(model / FILE, config)
    for name, (_, write) in WRITERS.items():
        if (known and (model / name).is_file()) or not is_installed(name):
            continue
        with whole_file(model / name) as part:
            write(part, config, tensors)
    stamp.write_text(version)


def read_weights() -> tuple[ResNetConfig, dict[str, npt.NDArray[np.float32]]]:
    """The committed weights by torchvision's names, and the sizes that follow from their shapes."""
    with np.load(WEIGHTS) as stored:
        tensors = {name: stored[name].astype(np.float32) for name in stored.files}
    blocks = [name.split(".")[0] for name in tensors if name.endswith("conv1.weight") and name.startswith("layer")]
    config = ResNetConfig(
        layers=tuple(blocks.count(stage) for stage in sorted(set(blocks))),
        width=len(tensors["conv1.weight"]),
        classes=len(tensors["fc.bias"]),
        image=SIZES["image"],
    )
    return config, tensors


def _version() -> str:
    """Of everything that the files follow from."""
    package = Path(__file__).parent
    parts = [package.parent / f"{name}.py" for name in ("config", "formats", "format_tensorflow", "format_ncnn")]
    sources = [WEIGHTS, package / "generate.py", *parts]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
