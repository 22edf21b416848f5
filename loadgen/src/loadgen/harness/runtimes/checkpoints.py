"""What a checkpoint of any framework has: sizes beside it as JSON, and tensors whose shapes follow from them."""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, TypeVar

from loadgen.contracts import InputError

T = TypeVar("T")
_NAMED = 5  # of tensors that are passed over


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object, as a model's config does. Raises InputError naming the file."""
    advice = f"Put the model's {path.name} there"
    if not path.is_file():
        raise InputError(f"{path}: no such file. {advice}")
    try:
        document: Any = json.loads(path.read_bytes())
    except ValueError as error:  # also UnicodeDecodeError
        raise InputError(f"{path}: not JSON ({error}). {advice}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds no JSON object. {advice}")
    return document


def size(document: Mapping[str, Any], key: str, path: Path) -> int:
    """`document[key]`, a positive whole number. Raises InputError naming the file and the key."""
    value = document.get(key)
    if type(value) is not int or value < 1:  # not isinstance: True is an int
        raise InputError(f"{path}: {key!r} is {value!r}, expected a positive whole number")
    return value


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: str, config: str
) -> None:
    """Raise InputError naming the first tensor that is missing, surplus or of another shape.

    source: what is checked; config: the name of the file whose sizes the expected shapes follow from.
    """
    advice = f"use the weights and {config} of one model"
    for name, shape in expected.items():
        if name not in found:
            raise InputError(f"{source}: tensor {name!r} {list(shape)} is missing: {advice}")
        if tuple(found[name]) != shape:
            raise InputError(
                f"{source}: tensor {name!r} has shape {list(found[name])}, expected {list(shape)}: {advice}"
            )
    surplus = sorted(set(found) - set(expected))
    if surplus:
        raise InputError(f"{source}: tensor {surplus[0]!r} is unknown to this model: {advice}")


def without_surplus(tensors: Mapping[str, T], known: Container[str], source: str) -> dict[str, T]:
    """The tensors that a model knows. Those that it does not are named on stderr and passed over.

    For checkpoints that the reference loads so, with PyTorch's `strict=False`; source: what they are of.
    """
    surplus = sorted(name for name in tensors if name not in known)
    if surplus:
        named = ", ".join(surplus[:_NAMED]) + (f" and {len(surplus) - _NAMED} more" if len(surplus) > _NAMED else "")
        print(f"warning: {source}: unknown to this model and passed over: {named}", file=sys.stderr, flush=True)
    return {name: value for name, value in tensors.items() if name in known}
