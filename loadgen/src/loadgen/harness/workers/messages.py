"""Python objects through a ring: pickles of protocol 5, their arrays beside them, so that each is copied only once."""

from __future__ import annotations

import pickle
from array import array
from typing import Any

import numpy as np

from loadgen.harness.workers.ring import WORD, Reader


def packed(message: object) -> tuple[bytes, list[memoryview]]:
    """What to write: the sizes of the pieces, then the pieces. Raises what pickling raises."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    pieces = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    return array("q", [len(pieces), *(piece.nbytes for piece in pieces)]).tobytes(), pieces


def receive(reader: Reader) -> Any:
    """The next message; its arrays can be written to. Raises PeerGone."""
    count = int(reader.take(1)[0])
    sizes = reader.take(count).tolist()
    head, *buffers = [reader.take(-(-size // WORD)).view(np.uint8)[:size] for size in sizes]
    return pickle.loads(head.tobytes(), buffers=buffers)
