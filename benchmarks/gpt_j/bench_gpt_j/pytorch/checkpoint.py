"""The weights of a Hugging Face folder: safetensors with their index, or PyTorch's own, as folders of 2023 have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from bench_gpt_j.official import BIN, BIN_INDEX, INDEX
from loadgen.contracts import InputError
from loadgen.harness.runtimes import safetensors
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.runtimes.checkpoints import read_object

_UNUSED = ("attn.bias", "attn.masked_bias")
"""Buffers in older files: the causal mask."""


@dataclass(frozen=True)
class Found:
    """Tensors by their official names."""

    file: Path
    """That names them, for messages."""
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]


@contextmanager
def opened(folder: Path) -> Iterator[Found]:
    """Raises InputError naming the file that is missing or damaged."""
    if not (folder / INDEX).is_file() and ((folder / BIN_INDEX).is_file() or (folder / BIN).is_file()):
        file = folder / BIN_INDEX if (folder / BIN_INDEX).is_file() else folder / BIN
        tensors = _read_bins(file)
        yield Found(file, _known({name: tuple(value.shape) for name, value in tensors.items()}), tensors.__getitem__)
        return
    with safetensors.opened(folder / INDEX) as found:
        yield Found(folder / INDEX, _known(found.shapes), found.read)


def _known(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if not name.endswith(_UNUSED)}


def _read_bins(file: Path) -> dict[str, Tensor]:
    """All at once: as much memory as the files have bytes."""
    if file.name == BIN:
        return runtime.read_state_dict(file)
    places = read_object(file).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{file}: has no 'weight_map' of tensors and files: fetch it again")
    if outside := [name for name in places.values() if Path(name).name != name]:
        raise InputError(f"{file}: names {outside[0]!r}, which is not a file beside it: fetch it again")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        tensors |= runtime.read_state_dict(file.parent / name)
    return tensors
