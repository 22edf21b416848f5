"""Answers of any length: samples are pictures with 0 to 4 boxes and a label, and cost what they have pairs.

As in object detection an answer's rows begin with the sample's index and may be none at all; as in recommendation they
hold a label that only the dataset knows, and the costs of a batch add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64, Answers, BackendOptions, Entry, InputError, Loaded, Scoring
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.harness.serving import finished
from loadgen.settings import Scenario

F32 = npt.NDArray[np.float32]
COUNT = 60


class Batch(NamedTuple):
    """Columns: the boxes' sizes of all samples, one sample after another, and where each sample's begin."""

    sizes: F32
    starts: I64


def boxes(index: int) -> F32:
    """The sizes of a sample's boxes."""
    return np.arange(index % 5, dtype=np.float32) + index


class Dataset:
    name, total_count, performance_count = "pictures", COUNT, COUNT

    def __init__(self, folder: Path) -> None:
        self.labels = np.fromfile(folder / "data" / "labels", np.float32)

    def load(self, indices: Sequence[int]) -> None:
        self.loaded = set(indices)

    def unload(self, indices: Sequence[int]) -> None:
        self.loaded -= set(indices)

    def gather(self, indices: I64) -> Batch:
        assert self.loaded.issuperset(indices.tolist())
        rows = [boxes(index) for index in indices.tolist()]
        return Batch(np.concatenate(rows), np.concatenate([[0], np.cumsum([len(row) for row in rows])]))

    def costs(self, indices: I64) -> I64:
        return 100 + indices % 7 * 100


class Backend:
    """Doubles sizes."""

    sizes: list[int] = []  # noqa: RUF012 - of all batches, for the test

    def __init__(self, options: BackendOptions) -> None:
        self.options = options

    def load(self) -> Loaded:
        return Loaded(self.options.device, self.options.dtype)

    def submit(self, batch: Batch) -> Future[list[F32]]:
        self.sizes.append(len(batch.starts) - 1)
        return finished(np.split(batch.sizes * 2, batch.starts[1:-1]))

    def close(self) -> None: ...


def encode(outputs: list[F32], indices: I64, dataset: Dataset) -> Answers:
    """float32 [boxes, 3] of a sample: index, size, label; no bytes where there is no box."""
    lengths = np.array([len(sizes) for sizes in outputs])
    rows = np.stack([np.repeat(indices, lengths), np.concatenate(outputs), np.repeat(dataset.labels[indices], lengths)])
    return Answers(np.ascontiguousarray(rows.T, np.float32), np.concatenate([[0], np.cumsum(lengths)]) * 12)


def decode(data: bytes) -> F32:
    return np.frombuffer(data, np.float32).reshape(-1, 3)


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    assert (at.folder / "data" / "labels").is_file()
    return {"mAP": 100 * float(np.mean([_is_right(entry, dataset) for entry in entries]))}


def _is_right(entry: Entry, dataset: Dataset) -> bool:
    found, sizes = decode(entry.data), boxes(entry.index)
    right = np.array([[entry.index, 2 * size, dataset.labels[entry.index]] for size in sizes]).reshape(-1, 3)
    return found.shape == right.shape and np.allclose(found, right)


def prepare(folder: Path) -> None:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (np.arange(COUNT, dtype=np.float32) % 3).tofile(folder / "data" / "labels")


def broken(_: Path) -> None:
    raise InputError("data/labels is missing: put it there")


WHOLE = {"performance_sample_count_override": 0, "min_query_count": 70, "min_duration_ms": 50}
BENCHMARK = Benchmark(
    name="ragged",
    title="Ragged answers",
    model="retinanet",
    scenarios=(Scenario.SingleStream, Scenario.MultiStream, Scenario.Server, Scenario.Offline),
    dataset="ragged:Dataset",
    backends={"numpy": BackendSpec("ragged:Backend", batch=16, cost_rule="packed")},
    postprocess="ragged",
    accuracy="ragged",
    profiles={
        "mini": Profile(
            "pictures, embedded",
            "ragged:prepare",
            samples=COUNT,
            reference={"mAP": 100.0},
            settings={
                Scenario.SingleStream: {"single_stream_expected_latency_ns": 10_000.0, **WHOLE},
                Scenario.MultiStream: {"multi_stream_expected_latency_ns": 1e5, **WHOLE, "min_query_count": 662},
                Scenario.Server: {"server_target_qps": 2000.0, "server_target_latency_ns": 10**9, **WHOLE}
                | {"min_query_count": 800},
                Scenario.Offline: {
                    "offline_expected_qps": 2000.0,
                    **WHOLE,
                    "min_query_count": 3000,
                    "min_duration_ms": 0,
                },
            },
        ),
        "full": Profile("pictures from elsewhere", "ragged:broken", is_official=True),
    },
)
