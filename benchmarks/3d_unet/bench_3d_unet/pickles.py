"""Pickles of plain data and NumPy arrays that are read without running anything, and by every version of NumPy.

NumPy 2 pickles an array by the name of a private function, which NumPy 1 has under another name, so the same array
gives other bytes. Here an array is written as a call of `numpy.ndarray`, which all versions know.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from loadgen.contracts import InputError
from loadgen.harness.files import whole_file

_ARRAY, _SCALAR = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
_BUFFER = np.zeros(1).__reduce_ex__(5)[0]


def _encoded(text: str, _: str) -> bytes:
    """How protocol 2 writes an array's bytes."""
    return text.encode("latin1")


_MAY = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("builtins", "bytearray"): bytearray,
    ("_codecs", "encode"): _encoded,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _ARRAY for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _SCALAR for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _BUFFER for core in ("core", "_core")},
}
"""All that a pickle may name: what makes arrays and numbers, in the words of NumPy 1 and 2."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _MAY:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")
        return _MAY[module, name]


class _Writer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return np.ndarray, (value.shape, value.dtype.str, bytearray(np.ascontiguousarray(value)))
        return NotImplemented


def read(path: Path) -> Any:
    """What the file holds. Raises InputError naming it if it is missing, damaged, or names more than arrays."""
    try:
        with path.open("rb") as file:
            return _Reader(file).load()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file. Put KiTS19 in data/raw, or the preprocessed volumes there") from error
    except Exception as error:  # bytes of any kind make pickle raise any kind
        raise InputError(f"{path}: not a pickle of arrays ({error}): make or get it again") from error


def write(path: Path, value: Any) -> None:
    """Protocol 4, which Python 3.4 and later read."""
    with whole_file(path) as part, part.open("wb") as file:
        _Writer(file, protocol=4).dump(value)
