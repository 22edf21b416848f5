"""NumPy's files in memory without reading them: `.npy`, and members of an `.npz` that are not compressed."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from loadgen.contracts import InputError

_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of a zip's member: its mark, and the lengths of the name and the extra field that follow."""


def map_npy(path: Path, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The array of an `.npy` file, which cannot be written to. Raises InputError that names the file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    with path.open("rb") as file:
        return _map(path, path.name, file, 0, dtype)


def map_npz(path: Path, members: list[str], dtype: npt.DTypeLike) -> list[npt.NDArray[Any]]:
    """The arrays of these members, such as `0.npy`. Raises InputError that names file and member."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not an .npz file, or cut off ({error}). Fetch it again") from error
    with path.open("rb") as file:
        return [
            _map(path, f"{path.name}, member {name}", file, _place(path, name, infos, file), dtype) for name in members
        ]


def _place(path: Path, name: str, infos: dict[str, zipfile.ZipInfo], file: IO[bytes]) -> int:
    """Where the member's bytes begin."""
    if name not in infos:
        raise InputError(f"{path}: has no member {name}: fetch the official file again")
    if infos[name].compress_type != zipfile.ZIP_STORED:
        raise InputError(
            f"{path}, member {name}: is compressed, so it cannot be mapped into memory: "
            "use the official file, or write it with numpy.savez instead of savez_compressed"
        )
    file.seek(infos[name].header_offset)
    header = file.read(_LOCAL_HEADER.size)
    mark: bytes
    name_length: int
    extra_length: int
    mark, name_length, extra_length = _LOCAL_HEADER.unpack(header.ljust(_LOCAL_HEADER.size, b"\0"))
    if mark != b"PK\x03\x04":
        raise InputError(f"{path}, member {name}: is not where the file says. Fetch it again")
    return infos[name].header_offset + _LOCAL_HEADER.size + name_length + extra_length


def _map(path: Path, what: str, file: IO[bytes], place: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The array whose `.npy` header begins at `place`."""
    file.seek(place)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, found = read(file)
        if found != np.dtype(dtype) or is_fortran:
            raise InputError(f"{path.with_name(what)}: holds {found}, expected {np.dtype(dtype)}, row by row")
        return np.memmap(path, found, "r", file.tell(), shape)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path.with_name(what)}: not a whole NumPy array ({error}). Fetch it again") from error
