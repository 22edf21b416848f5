"""The pipe of words between two processes."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from loadgen.harness.workers.ring import PeerGone, Reader, Ring, Writer


def test_a_ring_passes_any_amount_in_order() -> None:
    """Writer and reader here are one thread: what is written never exceeds the ring."""
    ring = Ring.make(1)
    writer, reader = Writer(ring), Reader(ring)
    rng, sent, found = np.random.default_rng(1), [], []
    for size in rng.integers(1, ring.size // 8 // 2, 200).tolist():
        words = rng.integers(0, 1 << 40, size)
        (writer.put if size % 2 else writer.write)(words.tobytes())
        sent.append(words)
        found.append(reader.take(size))
    writer.write(b"12345")
    assert reader.take(1).tobytes() == b"12345\0\0\0"
    assert (np.concatenate(sent) == np.concatenate(found)).all()
    assert writer.room() > ring.size // 2


def test_what_a_process_wrote_before_it_ended_is_read() -> None:
    ring = Ring.make(1)
    ended = multiprocessing.get_context("spawn").Process(target=int)
    ended.start()
    reader = Reader(ring, ended)
    Writer(ring).write(b"last....")
    ended.join()
    assert reader.take(1).tobytes() == b"last...."
    with pytest.raises(PeerGone):
        reader.take(1)
