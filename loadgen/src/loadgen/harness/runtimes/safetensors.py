"""Weights of a Hugging Face folder: safetensors files, and the index that says which file has which tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from loadgen.contracts import InputError
from loadgen.harness.files import whole_file
from loadgen.harness.runtimes.checkpoints import read_object

if TYPE_CHECKING:
    import torch

Tensors: TypeAlias = "Mapping[str, Any]"
"""Name -> numpy array."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of all files of an index, not read yet."""

    index: Path
    shapes: Mapping[str, tuple[int, ...]]
    _slices: Mapping[str, Any]

    def read(self, name: str, axis: int = 0, part: int = 0, parts: int = 1) -> torch.Tensor:
        """One tensor on the CPU, or one of `parts` equal parts along an axis: only that is read from the disk."""
        found, size = self._slices[name], self.shapes[name][axis] // parts
        wanted = slice(part * size, (part + 1) * size)
        taken: torch.Tensor = found[wanted] if axis == 0 else found[:, wanted]
        return taken


@contextmanager
def opened(index: Path) -> Iterator[Checkpoint]:
    """The files that `index` names stay mapped meanwhile.

    Raises InputError naming the file that is missing or damaged, or the tensor that its file has not.
    """
    places = _places(index)
    with ExitStack() as stack:
        handles = {file: stack.enter_context(_open(index.parent / file)) for file in sorted(set(places.values()))}
        slices = {}
        for name, file in places.items():
            if name not in set(handles[file].keys()):
                raise InputError(f"{index.parent / file}: has no tensor {name!r}, which {index.name} says: fetch both")
            slices[name] = handles[file].get_slice(name)
        yield Checkpoint(index, {name: tuple(found.get_shape()) for name, found in slices.items()}, slices)


def _places(index: Path) -> dict[str, str]:
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise InputError(f"{index}: has no 'weight_map' of tensors and files: fetch it again")
    if outside := [file for file in places.values() if Path(file).name != file]:
        raise InputError(f"{index}: names {outside[0]!r}, which is not a file beside it: fetch it again")
    return places


def _open(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise InputError(f"{file}: no such file. Put it beside the index that names it")
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a safetensors file ({error}). Fetch it again") from error


def write(index: Path, tensors: Tensors, shards: int, written: Callable[[Path], None] = lambda file: None) -> None:
    """Write `shards` files of about the same size, and at last the index, named as Hugging Face names them.

    written: called with each file when it is there.
    """
    from safetensors.numpy import save_file

    sizes = {name: int(value.nbytes) for name, value in tensors.items()}
    total, done, places = sum(sizes.values()), 0, dict[str, str]()
    for name, size in sizes.items():
        number = min(shards, 1 + done * shards // max(1, total))
        places[name] = f"model-{number:05}-of-{shards:05}.safetensors"
        done += size
    for file in dict.fromkeys(places.values()):
        with whole_file(index.parent / file) as part:
            kept = {name: tensors[name] for name in tensors if places[name] == file}
            save_file(kept, part, metadata={"format": "pt"})
        written(index.parent / file)
    with whole_file(index) as part:
        part.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2) + "\n")
