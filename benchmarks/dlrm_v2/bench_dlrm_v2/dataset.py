"""Day 23 of Criteo's clicks, multi-hot: one sample is 100 to 700 pairs of a user and an item.

The files are mapped into memory. Loading checks samples, and brings them into memory if there is room: 204,800 samples
take 50 GB. Else they are read from the files again when they are gathered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench_dlrm_v2.arrays import map_npy, map_npz
from bench_dlrm_v2.batch import F32, I32, Batch, Features, Files, rows_of
from bench_dlrm_v2.official import DENSE, DENSE_FEATURES, LABELS, SAMPLE, SNAPSHOT, SPARSE, TABLES, TRACE
from bench_dlrm_v2.snapshot import Snapshot
from bench_dlrm_v2.trace import aggregate, read_trace
from loadgen.contracts import I64, InputError
from loadgen.memory import available_bytes

_CHECKED = 65_536  # pairs that are read at a time
_SHARE = 0.7  # of the free memory, at most, for samples


class Dataset:
    """The validation pairs of `data/day_23_*` (see `contracts.Dataset`), in samples.

    `data/dlrm_trace_of_aggregated_samples.txt` says which pairs a sample has, if it is there; else they are drawn as
    the reference draws them.
    """

    def __init__(self, folder: Path, *, suffix: str = "") -> None:
        """suffix: of the three files' names (see `official.SAMPLE`). Raises InputError that names the file and the
        fault."""
        data = folder / "data"
        self._sparse = data / f"{SPARSE}{suffix}.npz"
        dense = map_npy(data / f"{DENSE}{suffix}.npy", np.float32)
        self._labels = data / f"{LABELS}{suffix}.npy"
        labels = map_npy(self._labels, np.int32)
        indices = map_npz(self._sparse, [f"{number}.npy" for number in range(TABLES)], np.int32)
        rows = _check_shapes(dense, indices, labels, data, suffix)
        self.pairs = rows if suffix == SAMPLE else -(-rows // 2)
        self.files = Files(dense, tuple(indices))
        self._memory: Features | None = None
        self.labels: I32 = labels.reshape(-1)
        self.table_rows = Snapshot(folder / "model" / SNAPSHOT).config.rows
        trace = data / TRACE
        self.starts, self.counts = read_trace(trace, self.pairs) if trace.is_file() else aggregate(self.pairs)
        self._places = np.full(len(self.starts), -1)

    @property
    def name(self) -> str:
        return "Criteo day 23, multi-hot"

    @property
    def total_count(self) -> int:
        return len(self.starts)

    @property
    def performance_count(self) -> int:
        """All: there may be more than fit in memory."""
        return len(self.starts)

    def load(self, indices: Sequence[int]) -> None:
        """Check these samples, and bring them into memory if there is room for all.

        Raises InputError that names an index outside of its table, or a label that is neither 0 nor 1.
        """
        wanted = np.unique(np.asarray(indices, np.int64))
        wanted = wanted[np.argsort(self.starts[wanted], kind="stable")]  # as the files have them
        counts = self.counts[wanted]
        self._memory = None  # the last ones go before these come
        self._memory = self._room(int(counts.sum()))
        self._places[:] = -1
        self._places[wanted] = self.starts[wanted] if self._memory is None else np.cumsum(counts) - counts
        at = 0
        for begin, end in _spans(self.starts[wanted], counts):
            self._read(begin, end, at)
            at += end - begin

    def _room(self, pairs: int) -> Features | None:
        """For so many pairs; None if they would take more than their share of the memory."""
        hots = self.files.hots
        free = available_bytes()
        if free is not None and 4 * pairs * (sum(hots) + DENSE_FEATURES) > _SHARE * free:
            return None
        return Features(np.empty((pairs, DENSE_FEATURES), np.float32), np.empty((pairs, sum(hots)), np.int32), hots)

    def _read(self, begin: int, end: int, at: int) -> None:
        """Check pairs [begin, end) of the files, and copy them to row `at` of the memory."""
        parts = [ids[begin:end] for ids in self.files.columns]
        for table, ids in enumerate(parts):
            self._check_indices(table, ids, begin)
        if self._memory is not None:
            rows = slice(at, at + end - begin)
            self._memory.dense[rows] = self.files.dense[begin:end]
            np.concatenate(parts, axis=1, out=self._memory.indices[rows])
        labels = self.labels[begin:end]
        if ((labels != 0) & (labels != 1)).any():
            raise InputError(f"{self._labels}: pairs {begin} to {end - 1} have labels beside 0 and 1: fetch it again")

    def _check_indices(self, table: int, ids: I32, begin: int) -> None:
        rows = self.table_rows[table]
        if int(ids.view(np.uint32).max()) < rows:  # negative ones are the largest so
            return
        at, hot = np.argwhere((ids < 0) | (ids >= rows))[0].tolist()
        sample = int(np.argmax((self.starts <= begin + at) & (begin + at < self.starts + self.counts)))
        raise InputError(
            f"{self._sparse}, member {table}.npy, row {begin + at} (sample {sample}): index {ids[at, hot]} is outside "
            f"of table t_cat_{table}, which has rows 0 to {rows - 1}. The file's ids may not be hashed, or its tables "
            "are in another order: use the official file with the official weights"
        )

    def unload(self, indices: Sequence[int]) -> None:
        """Forget all that were loaded."""
        self._memory = None
        self._places[:] = -1

    def gather(self, indices: I64) -> Batch:
        """Loaded samples, in this order; a backend copies them to where it wants them."""
        places = self._places[indices]
        if len(places) and places.min() < 0:
            raise ValueError(f"sample {indices[int(places.argmin())]} is not loaded")
        return Batch(self.files if self._memory is None else self._memory, places, self.counts[indices])

    def costs(self, indices: I64) -> I64:
        """Pairs of each sample."""
        counts: I64 = self.counts[indices]
        return counts

    def labels_of(self, indices: I64) -> I32:
        """Of all pairs, sample after sample."""
        labels: I32 = self.labels[rows_of(self.starts[indices], self.counts[indices])]
        return labels


def _check_shapes(dense: F32, indices: Sequence[I32], labels: I32, data: Path, suffix: str) -> int:
    """The number of rows. Raises InputError naming the array whose shape does not fit."""
    rows = len(dense) if dense.ndim else 0
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    shapes = {f"{DENSE}{suffix}.npy": (dense.shape, (rows, DENSE_FEATURES))}
    shapes[f"{LABELS}{suffix}.npy"] = (labels.shape, (rows, 1) if labels.ndim == 2 else (rows,))
    for number, ids in enumerate(indices):
        hot = ids.shape[1] if ids.ndim == 2 else 1
        shapes[f"{SPARSE}{suffix}.npz, member {number}.npy"] = (ids.shape, (rows, max(1, hot)))
    for name, (found, expected) in shapes.items():
        if found != expected or not rows:
            raise InputError(
                f"{data / name}: has shape {list(found)}, expected {list(expected)} as {DENSE}{suffix}.npy has {rows} "
                "rows: use the three files of one day"
            )
    return rows


def _spans(starts: I64, counts: I64) -> Iterator[tuple[int, int]]:
    """[begin, end) of the pairs of samples in rising order, joined where they follow each other, and cut again."""
    if not len(starts):
        return
    ends = starts + counts
    is_first = np.concatenate([[True], starts[1:] != ends[:-1]])
    lasts = np.concatenate([np.flatnonzero(is_first)[1:] - 1, [len(starts) - 1]])
    for begin, end in zip(starts[is_first].tolist(), ends[lasts].tolist(), strict=True):
        yield from ((at, min(end, at + _CHECKED)) for at in range(begin, end, _CHECKED))
