"""Day 23's files, the samples that pairs become, and what is said of files that do not fit."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_dlrm_v2 import dataset
from bench_dlrm_v2.arrays import map_npy
from bench_dlrm_v2.batch import Batch, Features, Files
from bench_dlrm_v2.config import DlrmConfig
from bench_dlrm_v2.dataset import Dataset
from bench_dlrm_v2.official import DENSE, LABELS, SAMPLE, SNAPSHOT, SPARSE, TRACE
from bench_dlrm_v2.postprocess import encode
from bench_dlrm_v2.standins.day_23 import write_day
from bench_dlrm_v2.standins.formats import write_snapshot
from bench_dlrm_v2.trace import aggregate, read_trace, write_trace
from loadgen.contracts import InputError

PAIRS = 1001
HOTS = tuple(1 + number % 3 for number in range(26))
ROWS = tuple(7 + number for number in range(26))
Arrays = dict[str, Any]


def day() -> Arrays:
    rng = np.random.default_rng(1)
    return {
        "dense": rng.random((PAIRS, 13), np.float32),
        "indices": [rng.integers(0, rows, (PAIRS, hot)).astype(np.int32) for rows, hot in zip(ROWS, HOTS, strict=True)],
        "labels": rng.integers(0, 2, PAIRS).astype(np.int32),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A profile's folder with a day of 1,001 pairs, and a snapshot that lists its tables."""
    write_day(tmp_path / "data", **day())
    write_snapshot(tmp_path / "model" / SNAPSHOT, DlrmConfig(rows=ROWS, dim=2, bottom=(2,), rank=1, top=(2,)), {})
    return tmp_path


def test_the_official_trace_to_the_byte(tmp_path: Path) -> None:
    trace = aggregate(89_137_319)
    write_trace(tmp_path / TRACE, trace)
    assert len(trace.starts) == 330_067
    assert hashlib.md5((tmp_path / TRACE).read_bytes()).hexdigest() == "3db90209564316f2506c99cc994ad0b2"
    assert trace.counts[-1] == 19
    again = read_trace(tmp_path / TRACE, 89_137_319)
    assert all((a == b).all() for a, b in zip(trace, again, strict=True))


@pytest.mark.parametrize("pairs", [1, 99, 100, 101, 12_345])
def test_samples_hold_every_pair_once(pairs: int) -> None:
    starts, counts = aggregate(pairs)
    assert starts[0] == 0
    assert (starts[1:] == (starts + counts)[:-1]).all()
    assert starts[-1] + counts[-1] == pairs
    assert counts.min() > 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0, 100", "line 2: '0, 100' is not `first, end, count`"),
        ("0, x, 100", "is not `first, end, count`"),
        ("0, 100, 99", "line 2: 0 to 100 are not 99 pairs"),
        ("5, 5, 0", "5 to 5 are not 0 pairs"),
        ("400, 502, 102", "ends at pair 502, but the data has 501 for validation: use the trace of this data"),
    ],
)
def test_a_trace_that_does_not_fit_is_refused(line: str, said: str, folder: Path) -> None:
    (folder / "data" / TRACE).write_text(f"0, 100, 100\n{line}\n")
    with pytest.raises(InputError, match=said):
        Dataset(folder)


def test_an_empty_trace_is_refused(folder: Path) -> None:
    (folder / "data" / TRACE).write_text("")
    with pytest.raises(InputError, match="has no samples"):
        Dataset(folder)


def test_a_trace_that_is_there_is_used(folder: Path) -> None:
    (folder / "data" / TRACE).write_text("0, 100, 100\n100, 104, 4\n")
    data = Dataset(folder)
    assert (data.total_count, data.counts.tolist(), data.starts.tolist()) == (2, [100, 4], [0, 100])


def test_half_of_the_day_is_for_validation_and_all_of_a_sample(folder: Path) -> None:
    assert Dataset(folder).pairs == 501
    write_day(folder / "data", **day(), suffix=SAMPLE)
    assert Dataset(folder, suffix=SAMPLE).pairs == PAIRS


def test_reads_what_numpy_writes(folder: Path) -> None:
    arrays = day()
    np.savez(folder / "data" / f"{SPARSE}.npz", **{str(number): ids for number, ids in enumerate(arrays["indices"])})
    np.save(folder / "data" / f"{DENSE}.npy", arrays["dense"])
    data = Dataset(folder)
    assert all((a == b).all() for a, b in zip(data.files.columns, arrays["indices"], strict=True))
    assert all(isinstance(ids, np.memmap) for ids in data.files.columns), "nothing is read ahead"
    assert (data.files.dense == arrays["dense"]).all()


def test_a_file_larger_than_the_memory_is_mapped(tmp_path: Path) -> None:
    """The official data has a member of 71 GB: a mapping that could be written to would be refused on a laptop."""
    pairs = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 400 * 3
    path = tmp_path / "day.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i4", "fortran_order": False, "shape": (pairs, 100)})
        file.truncate(file.tell() + 400 * pairs)  # a hole, which takes no room
    ids = map_npy(path, np.int32)
    path.unlink()
    assert ids.shape == (pairs, 100)
    assert ids[-1].tolist() == [0] * 100


def test_numpy_reads_what_is_written(folder: Path) -> None:
    with np.load(folder / "data" / f"{SPARSE}.npz") as archive:
        assert archive.files == [str(number) for number in range(26)]
        assert all((archive[str(number)] == ids).all() for number, ids in enumerate(day()["indices"]))
    assert np.load(folder / "data" / f"{LABELS}.npy").shape == (PAIRS, 1)


def rows_by_hand(data: Dataset, samples: list[int]) -> list[int]:
    return [row for i in samples for row in range(data.starts[i], data.starts[i] + data.counts[i])]


@pytest.mark.parametrize("free", [None, 1_000])
@pytest.mark.parametrize("samples", [[0], [2], [2, 0, 1], [1, 1]])
def test_a_batch_has_its_samples_pairs_in_order(
    samples: list[int], free: int | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From memory, or from the files where there is no room."""
    monkeypatch.setattr(dataset, "available_bytes", lambda: free)
    (folder / "data" / TRACE).write_text("0, 5, 5\n100, 103, 3\n7, 20, 13\n")
    data, arrays = Dataset(folder), day()
    data.load(samples)
    batch = data.gather(np.array(samples))
    assert isinstance(batch.source, Features if free is None else Files)
    rows = rows_by_hand(data, samples)
    sent: Batch = pickle.loads(pickle.dumps(batch))
    for one in (batch, sent):
        features = one.features
        assert len(one) == len(rows)
        assert one.counts.tolist() == [data.counts[i] for i in samples]
        assert (features.dense == arrays["dense"][rows]).all()
        assert all((a == b[rows]).all() for a, b in zip(features.columns, arrays["indices"], strict=True))
    assert isinstance(sent.source, Features)
    assert len(sent.source.dense) == len(rows), "another process gets no more than it needs"
    assert (data.labels_of(np.array(samples)) == arrays["labels"][rows]).all()


def test_memory_holds_the_loaded_samples_and_no_more(folder: Path) -> None:
    (folder / "data" / TRACE).write_text("0, 5, 5\n100, 103, 3\n103, 106, 3\n7, 20, 13\n")
    data = Dataset(folder)
    data.load([3, 1, 2])
    source = data.gather(np.array([1])).source
    assert isinstance(source, Features)
    assert len(source.dense) == len(source.indices) == 19
    for index in (0, -4):
        with pytest.raises(ValueError, match=f"sample {index} is not loaded"):
            data.gather(np.array([1, index]))
    data.unload([3, 1, 2])
    with pytest.raises(ValueError, match="sample 3 is not loaded"):
        data.gather(np.array([3]))


def test_a_large_query_builds_no_object_for_a_pair(mini_dataset: Dataset) -> None:
    """Nor for a sample: 5,000 samples of 1.3 M pairs."""
    indices = np.random.default_rng(0).integers(0, mini_dataset.total_count, 5_000)
    outputs = np.zeros(mini_dataset.costs(indices).sum(), np.float32)
    before = sys.getallocatedblocks()
    batch = mini_dataset.gather(indices)
    answers = encode(outputs, indices, mini_dataset)
    assert sys.getallocatedblocks() - before < 500
    assert len(batch) == len(outputs) > 1_000_000
    assert answers.offsets[-1] == 8 * len(outputs)


@pytest.mark.parametrize(("index", "table", "row"), [(7 + 3, 3, 130), (-1, 25, 499), (2**31 - 1, 0, 0)])
def test_an_index_outside_of_its_table_is_named(index: int, table: int, row: int, folder: Path) -> None:
    arrays = day()
    arrays["indices"][table][row, -1] = index
    write_day(folder / "data", **arrays)
    (folder / "data" / TRACE).write_text("".join(f"{at}, {at + 50}, 50\n" for at in range(0, 500, 50)))
    data = Dataset(folder)
    sample = row // 50
    data.load([i for i in range(10) if i != sample])
    said = rf"member {table}.npy, row {row} \(sample {sample}\): index {index} is outside of table t_cat_{table}"
    with pytest.raises(InputError, match=said):
        data.load([sample])


def test_a_bad_index_of_rows_for_calibration_is_nobodys_business(folder: Path) -> None:
    arrays = day()
    arrays["indices"][4][501:, 0] = 10_000
    write_day(folder / "data", **arrays)
    data = Dataset(folder)
    data.load(range(data.total_count))


def test_a_label_beside_0_and_1_is_refused(folder: Path) -> None:
    arrays = day()
    arrays["labels"][3] = 2
    write_day(folder / "data", **arrays)
    with pytest.raises(InputError, match=r"day_23_labels.npy: pairs 0 to 199 have labels beside 0 and 1"):
        Dataset(folder).load([0])


def replace(name: str, **changes: Callable[[Any], Any]) -> Callable[[Path], object]:
    def apply(data: Path) -> None:
        arrays = day()
        arrays[name] = changes["by"](arrays[name])
        write_day(data, **arrays)

    return apply


def compress(data: Path) -> None:
    columns = {str(number): ids for number, ids in enumerate(day()["indices"])}
    np.savez_compressed(data / f"{SPARSE}.npz", **columns)


def cut(data: Path) -> None:
    file = data / f"{DENSE}.npy"
    file.write_bytes(file.read_bytes()[:-1])


def scramble(data: Path) -> None:
    file = data / f"{SPARSE}.npz"
    file.write_bytes(b"PK\x00\x00" + file.read_bytes()[4:])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "labels of another length": (
        replace("labels", by=lambda v: v[:-1]),
        r"day_23_labels.npy: has shape \[1000, 1\], expected \[1001, 1\] as day_23_dense.npy has 1001 rows",
    ),
    "a table's column of another length": (
        replace("indices", by=lambda v: [*v[:3], v[3][:-7], *v[4:]]),
        r"day_23_sparse_multi_hot.npz, member 3.npy: has shape \[994, 1\]",
    ),
    "12 features": (replace("dense", by=lambda v: v[:, 1:]), r"day_23_dense.npy: has shape \[1001, 12\]"),
    "features as doubles": (replace("dense", by=lambda v: v.astype(float)), "holds float64, expected float32"),
    "indices of 64 bits": (
        replace("indices", by=lambda v: [ids.astype(np.int64) for ids in v]),
        "member 0.npy: holds int64, expected int32",
    ),
    "column by column": (
        lambda data: np.save(data / f"{DENSE}.npy", np.asfortranarray(day()["dense"])),
        "expected float32, row by row",
    ),
    "25 tables": (replace("indices", by=lambda v: v[:-1]), "has no member 25.npy"),
    "compressed": (compress, r"member 0.npy: is compressed, so it cannot be mapped.*numpy.savez instead"),
    "cut off": (cut, "day_23_dense.npy: not a whole NumPy array"),
    "scrambled": (scramble, r"not an .npz file|is not where the file says"),
    "empty": (replace("dense", by=lambda v: v[:0]), r"has shape \[1001, 1\]|expected"),
    "no labels": (lambda data: (data / f"{LABELS}.npy").unlink(), "day_23_labels.npy: no such file"),
    "no indices": (lambda data: (data / f"{SPARSE}.npz").unlink(), "day_23_sparse_multi_hot.npz: no such file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_do_not_fit_are_refused(fault: str, folder: Path) -> None:
    damage, said = FAULTS[fault]
    damage(folder / "data")
    with pytest.raises(InputError, match=said):
        Dataset(folder)
