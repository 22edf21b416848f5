"""Text made of columns: many lines of one form at once, because a log may have millions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
_SLICE = 32768  # bytes turned into hexadecimal at a time: they and their indices stay in the cache
_HEX: npt.NDArray[np.uint16] = np.array([f"{byte:02X}" for byte in range(256)], "S2").view(np.uint16)


class Piece(NamedTuple):
    """One piece of each line."""

    what: bytes | I64 | Bytes
    """The same text in all lines; a whole number in each; or a row of characters in each."""
    least: int = 1
    """Digits of a number, at least: zeros are put before it."""
    lines: npt.NDArray[np.bool_] | None = None
    """The lines that it stands in; None: all."""


def text_of(count: int, pieces: Sequence[Piece]) -> bytes:
    """So many lines, of these pieces one after another."""
    if not count:
        return b""
    parts = [_drawn(piece) for piece in pieces]
    canvas = np.empty((count, sum(characters.shape[-1] for characters, _ in parts)), np.uint8)
    shown = np.ones(canvas.shape, bool)
    at = 0
    for piece, (characters, seen) in zip(pieces, parts, strict=True):
        span = slice(at, at + characters.shape[-1])
        canvas[:, span] = characters
        if seen is not None:
            shown[:, span] = seen
        if piece.lines is not None:
            shown[~piece.lines, span] = False
        at = span.stop
    return canvas[shown].tobytes()


def _drawn(piece: Piece) -> tuple[Bytes, npt.NDArray[np.bool_] | None]:
    """Characters, and which of them are to be seen; None: all."""
    if isinstance(piece.what, bytes):
        return np.frombuffer(piece.what, np.uint8), None
    if piece.what.ndim == 2:
        return piece.what.view(np.uint8), None
    return _digits(piece.what.astype(np.int64, copy=False), piece.least)


def _digits(numbers: I64, least: int) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """A sign and the digits of each number, right-aligned."""
    left: npt.NDArray[Any] = np.abs(numbers)
    width = max(least, len(str(left.max())))
    if left.max() < 2**32:
        left = left.astype(np.uint32)  # is divided several times as fast
    characters = np.empty((len(numbers), 1 + width), np.uint8)
    seen = np.ones(characters.shape, bool)
    characters[:, 0], seen[:, 0] = ord("-"), numbers < 0
    for place in range(width):
        column = width - place
        if place >= least:
            seen[:, column] = left > 0
        rest = left // 10
        characters[:, column] = left - 10 * rest + ord("0")
        left = rest
    return characters, seen


def hexed(data: Any) -> bytes:
    """Bytes in hexadecimal, upper case."""
    view = memoryview(data)
    parts = [_HEX[np.frombuffer(view[low : low + _SLICE], np.uint8)] for low in range(0, len(view), _SLICE)]
    return b"".join(parts)  # type: ignore[arg-type] # arrays are buffers
