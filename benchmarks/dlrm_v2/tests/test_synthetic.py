"""Profiles of full size: real sizes, data as large and as skewed as stated, and tables that need no file."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_dlrm_v2 import needs
from bench_dlrm_v2.benchmark import BENCHMARK, SYNTHETIC
from bench_dlrm_v2.config import DlrmConfig, weight_shapes
from bench_dlrm_v2.dataset import Dataset
from bench_dlrm_v2.official import HOTS, ROWS, SAMPLE, SNAPSHOT
from bench_dlrm_v2.snapshot import Snapshot
from bench_dlrm_v2.standins import synthetic
from bench_dlrm_v2.standins.formats import write_snapshot
from bench_dlrm_v2.trace import aggregate
from loadgen.contracts import InputError
from loadgen.harness.cli import invoke

PAIRS = 6_000
SMALL = DlrmConfig(rows=tuple(min(rows, 50) for rows in ROWS), dim=4, bottom=(4,), rank=2, top=(4,))


def folder_of(tmp_path: Path, **options: Any) -> Path:
    """Data of PAIRS pairs for the official tables, with a small dense part."""
    config = replace(SMALL, rows=ROWS)
    write_snapshot(tmp_path / "model" / SNAPSHOT, config, synthetic.random_tensors(config))
    synthetic.prepare(tmp_path, pairs=PAIRS, **options)
    return tmp_path


def top_share(ids: Any, share: float = 0.01) -> float:
    """Of all draws, those of the most popular hundredth of what was drawn."""
    _, counts = np.unique(ids, return_counts=True)
    return float(np.sort(counts)[::-1][: max(1, int(share * len(counts)))].sum() / ids.size)


def test_data_has_the_official_sizes_and_a_skew(tmp_path: Path) -> None:
    data = Dataset(folder_of(tmp_path), suffix=SAMPLE)
    data.load(range(data.total_count))  # every index is in its table
    assert data.pairs == PAIRS
    assert tuple(ids.shape[1] for ids in data.files.columns) == HOTS
    table = data.files.columns[20]
    assert table.shape == (PAIRS, 100)
    assert np.ptp(table) > 39_000_000, "memory is read all over"
    assert top_share(table[:, 0]) > 0.1, "few items are asked for often"
    items, counts = np.unique(table[:, 0], return_counts=True)
    same = np.flatnonzero(table[:, 0] == items[counts.argmax()])
    assert len(same) > 10
    assert (table[same] == table[same[0]]).all(), "an item comes with the same others"


def test_uniform_data_has_none(tmp_path: Path) -> None:
    data = Dataset(folder_of(tmp_path, is_uniform=True), suffix=SAMPLE)
    data.load(range(data.total_count))
    table = data.files.columns[20]
    assert top_share(table) < 0.03
    small = np.bincount(data.files.columns[16].ravel(), minlength=4) / PAIRS
    assert small == pytest.approx(np.full(4, 0.25), abs=0.03)


def test_clicks_are_as_rare_as_criteos(tmp_path: Path) -> None:
    data = Dataset(folder_of(tmp_path), suffix=SAMPLE)
    assert data.labels.mean() == pytest.approx(0.032, abs=0.01)


def test_the_stated_number_of_samples() -> None:
    assert len(aggregate(synthetic.PAIRS).starts) == SYNTHETIC.samples


def test_the_snapshot_lists_the_official_model(tmp_path: Path) -> None:
    """Dense weights are there, tables are only listed."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"day_23_sparse_multi_hot{SAMPLE}.npz").touch()
    synthetic.prepare(tmp_path)
    snapshot = Snapshot(tmp_path / "model" / SNAPSHOT)
    assert snapshot.config == DlrmConfig()
    written = sum(file.stat().st_size for file in (tmp_path / "model").rglob("*"))
    assert 64e6 < written < 66e6
    dense = [name for name in weight_shapes(DlrmConfig()) if "t_cat" not in name]
    assert sum(snapshot.read(name).size for name in dense) == 16_044_545
    shutil.rmtree(tmp_path / "model")


def test_capped_tables(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"day_23_sparse_multi_hot{SAMPLE}.npz").touch()
    synthetic.prepare_capped(tmp_path)
    rows = Snapshot(tmp_path / "model" / SNAPSHOT).config.rows
    assert max(rows) == needs.CAP
    assert sum(rows) * 512 == pytest.approx(1.29e9, rel=0.01)
    shutil.rmtree(tmp_path / "model")


def test_hashes_look_random() -> None:
    found = synthetic.hashed(np.arange(100_000, dtype=np.uint64))
    bits = np.unpackbits(found.view(np.uint8)).reshape(-1, 32).mean(axis=0)
    assert bits == pytest.approx(np.full(32, 0.5), abs=0.01)
    assert len(np.unique(found)) > 99_990


def test_the_needs_of_a_machine() -> None:
    assert needs.memory_gb("pytorch", "float32", 8, "cpu") == pytest.approx(106.3, abs=0.1)
    assert needs.memory_gb("pytorch", "int8", 8, "cuda") == pytest.approx(28.7, abs=0.1)
    assert needs.capped("pytorch", "float32", 8, "cpu") == pytest.approx(3.1, abs=0.1)
    assert needs.official("pytorch", "float32", 8, "cuda") == pytest.approx(106.3, abs=0.1)
    assert needs.official("pytorch", "float32", 8, "cpu") == pytest.approx(1.8, abs=0.1), "rows stay in their files"


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 10**8))
    with pytest.raises(InputError, match=r"needs 0.5 GB, 0.1 GB are free: make room"):
        synthetic.write_data(tmp_path, SMALL, is_uniform=False, pairs=synthetic.PAIRS)
    assert not list(tmp_path.iterdir())


def test_a_run_makes_its_tables_and_says_that_it_is_no_result(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_snapshot(tmp_path / "model" / SNAPSHOT, SMALL, synthetic.random_tensors(SMALL))
    synthetic.prepare(tmp_path, pairs=PAIRS)
    rows = Dataset(tmp_path, suffix=SAMPLE).table_rows
    assert rows == SMALL.rows
    arguments = ["run", "--profile", "capped", "--scenario", "Offline", "--mode", "performance", "--duration", "1"]
    arguments += ["--threads", "1", "--qps", "50", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    invoke(BENCHMARK, arguments)
    assert "The capped profile is not a benchmark result" in " ".join(capfd.readouterr().out.split())
    assert json.loads((tmp_path / "out" / "results.json").read_text())["benchmark_result"] is False
