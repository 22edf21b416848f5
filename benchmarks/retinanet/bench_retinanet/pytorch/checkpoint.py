"""Reads weights from every form in which they are offered, and never runs what a file may hold.

A pickled module names classes, and loading it in the usual way would import and call them. Here a class is taken for
what it is only if it makes tensors or plain containers; all others become stubs, which keep what they are given and
do nothing. So a module can be read without the code that it was made by.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import torch
from torch import Tensor

from loadgen.contracts import InputError

_TAKEN = {
    ("__builtin__", "set"),  # by the name that Python 2 had for it, which pickles keep
    ("builtins", "set"),
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
}
"""PyTorch itself takes the names of storages before these are asked for."""
_TORCHVISION = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.0\."), r"\1."),
    (re.compile(r"^(head\.\w+\.conv)\.(\d+)\.0\."), lambda found: f"{found[1]}.{2 * int(found[2])}."),
)
"""Newer torchvision has a layer more around each convolution; the official names are older."""


class Stub:
    """In the place of any class: keeps the attributes that a pickle gives it."""

    def __new__(cls, *_: Any, **__: Any) -> Stub:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def __call__(self, *_: Any, **__: Any) -> Stub:
        return Stub()

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _TAKEN:
            return super().find_class(module, name)
        return type(name, (Stub,), {"__module__": module})


def _load(file: IO[bytes], **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="restricted pickle")
"""What `torch.load` wants of a module that unpickles."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by the official names, on the CPU, from a state dict, a checkpoint with one under `model`, or a module.

    Raises InputError naming the file.
    """
    advice = "fetch the official file again"
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    try:
        found = torch.load(path, map_location="cpu", pickle_module=_PICKLE, weights_only=False)
        state = _state(found)
    except Exception as error:  # from bytes of any kind PyTorch raises any kind
        said = str(error).splitlines() if isinstance(error, (RuntimeError, ValueError)) else []
        reason = said[0] if said else type(error).__name__
        raise InputError(f"{path}: holds no weights of PyTorch ({reason}): {advice}") from error
    counters = ".num_batches_tracked"  # of training steps
    return {official_name(name): value for name, value in state.items() if not name.endswith(counters)}


def _state(found: Any) -> dict[str, Tensor]:
    """Raises ValueError for anything without tensors."""
    if isinstance(found, Mapping) and "model" in found:
        found = found["model"]
    state = dict(_tensors(found)) if isinstance(found, Stub) else found
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"a {type(found).__name__} that has none")
    return {str(name): value.detach() for name, value in state.items()}


def _tensors(module: Stub, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and of those inside, by the names that its state dict would have."""
    own = vars(module)
    passing = own.get("_non_persistent_buffers_set", ())
    for name, value in {**own.get("_parameters", {}), **own.get("_buffers", {})}.items():
        if isinstance(value, Tensor) and name not in passing:
            yield f"{prefix}{name}", value
    for name, inner in own.get("_modules", {}).items():
        if isinstance(inner, Stub):
            yield from _tensors(inner, f"{prefix}{name}.")


def official_name(name: str) -> str:
    """Of a tensor that may go by torchvision's name."""
    for pattern, replacement in _TORCHVISION:
        name = pattern.sub(replacement, name)
    return name
