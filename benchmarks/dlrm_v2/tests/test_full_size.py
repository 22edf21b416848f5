"""DLRM-DCNv2 in full on a CPU: 97 GiB of tables in the official layout's files, which are holes but for a few rows.

What a laptop does with the official weights: nothing is read but the rows that a batch needs.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bench_dlrm_v2.batch import Batch, Files
from bench_dlrm_v2.config import DlrmConfig, table_name
from bench_dlrm_v2.official import HOTS, ROWS, SNAPSHOT
from bench_dlrm_v2.pytorch.backend import Backend
from bench_dlrm_v2.snapshot import Snapshot
from bench_dlrm_v2.standins.formats import write_snapshot
from bench_dlrm_v2.standins.synthetic import random_tensors
from loadgen.contracts import BackendOptions

FILLED = {0: (0, 1_048_575, 1_048_576, 4_999_999, 5_000_000, 39_999_999), 10: (3_067_955,), 12: (9,), 22: (590_151,)}
"""Rows of some tables that are not zero: first and last ones of tables, ranks and files."""


def value(table: int, row: int) -> np.ndarray:
    return np.random.default_rng([table, row]).standard_normal(128, np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("model")
    config = DlrmConfig()
    write_snapshot(folder / SNAPSHOT, config, random_tensors(config))
    for pieces in Snapshot(folder / SNAPSHOT).pieces.values():
        for piece in pieces:
            piece.file.parent.mkdir(exist_ok=True, parents=True)
            if not piece.file.is_file() or piece.file.stat().st_size < piece.end:
                with piece.file.open("ab") as file:
                    os.truncate(file.fileno(), piece.end)
    for table, rows in FILLED.items():
        for piece in Snapshot(folder / SNAPSHOT).pieces[table_name(table)]:
            with piece.file.open("r+b") as file:
                for row in (row for row in rows if piece.first <= row < piece.last):
                    file.seek(piece.begin + (row - piece.first) * 512)
                    file.write(value(table, row).tobytes())
    yield folder
    for file in (folder / SNAPSHOT).rglob("*"):
        if file.is_file():
            file.unlink()  # pytest would keep them


def test_a_cpu_reads_only_the_rows_that_it_needs(model: Path) -> None:
    listed = sum(piece.end - piece.begin for pieces in Snapshot(model / SNAPSHOT).pieces.values() for piece in pieces)
    assert listed == 4 * (128 * sum(ROWS) + 16_044_545)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    backend = Backend(BackendOptions(model, threads=1))
    backend.load()
    pairs = 6
    indices = [np.full((pairs, hot), rows - 1, np.int32) for rows, hot in zip(ROWS, HOTS, strict=True)]
    indices[0][:, 0] = FILLED[0]
    dense = np.random.default_rng(1).random((pairs, 13), np.float32)
    bags = backend.tables.bags([torch.from_numpy(ids) for ids in indices]).numpy()
    answers = backend.submit(Batch(Files(dense, tuple(indices)), np.array([0]), np.array([pairs]))).result()
    backend.close()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    expected = np.zeros((pairs, 26, 128), np.float32)
    for table, rows in FILLED.items():
        for pair in range(pairs):
            expected[pair, table] = sum(value(table, row) for row in indices[table][pair].tolist() if row in rows)
    assert np.abs(bags.reshape(pairs, 26, 128) - expected).max() < 1e-4
    assert len(np.unique(answers)) == pairs
    assert grown < 1e9, f"{grown / 1e9:.1f} GB of memory for tables of 104.5 GB"
    print(f"{grown / 1e9:.2f} GB")
