"""OpenOrca as the reference prepares it: a table that pandas has pickled or written as Parquet.

A pickle can run any code. This one is read without pandas and without running anything: the few names that such a
table needs stand for plain containers here, and any other name is refused.
"""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from loadgen.contracts import InputError

Table: TypeAlias = "dict[str, list[Any]]"
"""Column -> its values, all of one length."""

NEEDED = ("tok_input", "output")
WANTED = (*NEEDED, "tok_output", "origin")
"""Of the columns, those that anything here reads."""


def read_orca(path: Path) -> Table:
    """The WANTED columns that the file has. Raises InputError naming the file and what is wrong with it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_pickle(path)
    if missing := [name for name in NEEDED if name not in table]:
        raise InputError(f"{path}: has no column {missing[0]!r}: it is not the tokenised OpenOrca. Fetch it again")
    return table


def _read_pickle(path: Path) -> Table:
    content = path.read_bytes()
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return _columns(_Unpickler(io.BytesIO(content)).load())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}). Fetch it again") from error
    except Exception as error:  # from bytes of any kind an unpickler raises any kind
        raise InputError(
            f"{path}: not a pickled pandas table ({type(error).__name__}: {error}). Fetch it again"
        ) from error


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: Parquet is read with pyarrow, which is not installed: pip install pyarrow"
        ) from error
    try:
        file = parquet.ParquetFile(path)
        return dict(file.read([name for name in WANTED if name in file.schema_arrow.names]).to_pydict())
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file ({error}). Fetch it again") from error


class _Holder:
    """Stands for an object: keeps what it is made from, and its state."""

    state: Any = None

    def __init__(self, *made_from: Any) -> None:
        self.made_from = made_from

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Frame(_Holder):
    pass


def _index(kind: object, parts: Mapping[str, Any]) -> Any:
    return parts.get("data")


def _block(values: Any, place: Any, dimensions: int) -> tuple[Any, Any]:
    return values, place


_TABLE: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "pandas.core.frame.DataFrame": _Frame,
        "pandas.core.internals.managers.BlockManager": _Holder,
        "pandas._libs.internals._unpickle_block": _block,
        "pandas.core.indexes.base._new_Index": _index,
        "pandas.core.indexes.base.Index": _Holder,
        "pandas.core.indexes.range.RangeIndex": _Holder,
        "pandas.DataFrame": _Frame,  # pandas 3's names of three of these
        "pandas.Index": _Holder,
        "pandas.RangeIndex": _Holder,
        "builtins.slice": slice,
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        "numpy.core.multiarray._reconstruct": np.empty(0).__reduce__()[0],  # type: ignore[dict-item]
        "numpy.core.numeric._frombuffer": np.empty(0).__reduce_ex__(5)[0],  # type: ignore[dict-item]
    }
)
"""Every name that is read, and what it stands for."""


class _Unpickler(pickle.Unpickler):
    """Makes nothing but what a table consists of."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.")  # NumPy 2's name of it
        if full not in _TABLE:
            raise InputError(
                f"it holds a {full}, which is not read, since a pickle can run any code: "
                "save the table as Parquet, or with columns of plain objects"
            )
        return _TABLE[full]


def _columns(frame: Any) -> Table:
    if not isinstance(frame, _Frame):
        raise InputError(f"holds a {type(frame).__name__}, not a table of pandas. Fetch it again")
    blocks, axes = frame.state["_mgr"].made_from
    names: Sequence[str] = list(axes[0])
    table: Table = {}
    for values, place in blocks:
        numbers = range(len(names))[place] if isinstance(place, slice) else place
        for number, row in zip(numbers, values, strict=True):
            if names[number] in WANTED:
                table[names[number]] = list(row)
    return table
