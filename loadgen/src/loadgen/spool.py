"""The answers that are logged: kept out of the way while the clock runs, read back when the log is written."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64, Buffer, Offsets

_MEMORY_BYTES = 256 << 20  # kept in memory before they go to a temporary file


class SpoolError(Exception):
    """An answer cannot be kept. The message names its id and says what to do."""


@dataclass(frozen=True)
class LoggedAnswer:
    """One answer that goes to the accuracy log."""

    seq_id: int
    data: bytes
    first_token: bytes | None
    n_tokens: int | None


class Spool:
    """Answers, copied one after another into a file without a name. Any thread may add.

    folder: where the file is when it outgrows memory; None is the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES, dir=str(folder) if folder else None)  # noqa: SIM115 - closed in close()
        self._lock = threading.Lock()
        self._end = 0
        self._answers: list[tuple[int, int, int]] = []  # (id, offset, length) in order of completion
        self._first_tokens: dict[int, tuple[int, int]] = {}

    def add(self, ids: I64, wanted: npt.NDArray[np.bool_], data: Buffer, offsets: Offsets | None) -> None:
        """Keep the answers of the ids that are wanted. data, offsets: of all, as in `contracts.Responder.complete`.

        Raises SpoolError if the offsets do not fit or the disk is full.
        """
        self._answers.extend(self._stored(ids, wanted, data, offsets))

    def add_first_tokens(self, ids: I64, wanted: npt.NDArray[np.bool_], data: Buffer, offsets: Offsets | None) -> None:
        """As `add`."""
        for one, offset, length in self._stored(ids, wanted, data, offsets):
            self._first_tokens[one] = offset, length

    def answers(self, n_tokens: I64 | None = None, first_tokens: bool = False) -> Iterator[LoggedAnswer]:
        """In order of completion. n_tokens: of each id, where tokens are counted. first_tokens: bring them, too."""
        for one, offset, length in self._answers:
            first = self._first_tokens.get(one, (0, 0))
            yield LoggedAnswer(
                seq_id=one,
                data=self._read(offset, length),
                first_token=self._read(*first) if first_tokens else None,
                n_tokens=None if n_tokens is None else int(n_tokens[one]),
            )

    def close(self) -> None:
        self._file.close()

    def _stored(
        self, ids: I64, wanted: npt.NDArray[np.bool_], data: Buffer, offsets: Offsets | None
    ) -> Iterator[tuple[int, int, int]]:
        """Copy what is wanted out of the caller's buffer: (id, offset, length) each."""
        if not wanted.any():
            return
        view = flat(data)
        bounds = _bounds(offsets, ids, len(view))
        with self._lock:
            if self._file.tell() != self._end:  # a write failed half way, or somebody has read
                self._file.seek(self._end)
            for j in np.flatnonzero(wanted).tolist():
                piece = view[int(bounds[j]) : int(bounds[j + 1])]
                try:
                    self._file.write(piece)
                except OSError as error:
                    raise SpoolError(
                        f"id {ids[j]}: its answer cannot be kept for the log: {error}. Free space, or choose "
                        "an output folder with more"
                    ) from error
                yield int(ids[j]), self._end, len(piece)
                self._end += len(piece)

    def _read(self, offset: int, length: int) -> bytes:
        with self._lock:  # a system that was not stopped may still answer
            self._file.seek(offset)
            return self._file.read(length)


def flat(data: Buffer) -> memoryview:
    """The bytes of a buffer."""
    view = np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")


def _bounds(offsets: Offsets | None, ids: I64, n_bytes: int) -> Offsets:
    """Where each answer begins and ends. Raises SpoolError if the offsets do not fit."""
    if offsets is None and len(ids) == 1:
        return (0, n_bytes)
    if offsets is None or len(offsets) != len(ids) + 1 or int(offsets[-1]) > n_bytes:
        found = "no" if offsets is None else f"{len(offsets)}"
        raise SpoolError(
            f"id {ids[0]}: an answer of {len(ids)} ids came with {found} offsets and {n_bytes} bytes: "
            f"pass {len(ids) + 1} offsets that end within the buffer"
        )
    return offsets
