"""Answers in raw memory: bytes at addresses that a submission passes, as the official LoadGen reads them."""

from __future__ import annotations

import ctypes

import numpy as np

from loadgen.contracts import I64

_C_INT_MAX = 2**31 - 1  # the size of string_at
_SHORT = 4096


def bytes_at(address: int, size: int) -> bytes:
    """A copy of the bytes at this address."""
    if size <= _C_INT_MAX:
        return ctypes.string_at(address, size)
    return bytes((ctypes.c_ubyte * size).from_address(address))


def read(addresses: I64, sizes: I64) -> tuple[bytes, I64]:
    """Copies of the bytes at these addresses one after another, and where each begins and ends."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    total = int(offsets[-1])
    if not total:
        return b"", offsets
    if (addresses == addresses[0] + offsets[:-1]).all():  # they lie one after another
        return bytes_at(int(addresses[0]), total), offsets
    size = int(sizes[0])
    if size <= _SHORT and (sizes == size).all():
        return _items(addresses, size), offsets
    pieces = (bytes_at(*place) for place in zip(addresses.tolist(), sizes.tolist(), strict=True) if place[1])
    return b"".join(pieces), offsets


class _Memory:
    """The memory from the lowest address to the highest as an array of items that overlap: one for each address.

    It may have gaps. Only what is asked for is read.
    """

    def __init__(self, low: int, high: int, size: int) -> None:
        self.__array_interface__ = {
            "version": 3,
            "data": (low, True),
            "shape": (high - low + 1,),
            "strides": (1,),
            "typestr": f"|V{size}",
        }


def _items(addresses: I64, size: int) -> bytes:
    """Pieces of one size."""
    low = int(addresses.min())
    return np.asarray(_Memory(low, int(addresses.max()), size))[addresses - low].tobytes()
