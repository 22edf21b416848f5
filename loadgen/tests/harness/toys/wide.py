"""Large answers of a model that lies on several devices: a picture of 3,145,728 bytes a sample, in one colour.

Two scores of its own, each with a lower and an upper limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadgen.contracts import I64, Answers, BackendOptions, Entry, Loaded, Scoring
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.harness.serving import finished
from loadgen.settings import Scenario

Pictures = npt.NDArray[np.uint8]
COUNT, SIDE = 24, 1024
FID = 23.48


class Dataset:
    name, total_count, performance_count = "captions", COUNT, COUNT

    def __init__(self, folder: Path) -> None: ...

    def load(self, indices: Sequence[int]) -> None: ...

    def unload(self, indices: Sequence[int]) -> None: ...

    def gather(self, indices: I64) -> I64:
        return indices * 3

    def costs(self, indices: I64) -> I64:
        return np.ones(len(indices), np.int64)


class Backend:
    def __init__(self, options: BackendOptions) -> None:
        self.options = options

    def load(self) -> Loaded:
        return Loaded(" + ".join(self.options.devices), self.options.dtype, {"paint": "1.0"})

    def submit(self, batch: I64) -> Future[Pictures]:
        return finished(
            np.broadcast_to(batch.astype(np.uint8)[:, None, None, None], (len(batch), SIDE, SIDE, 3)).copy()
        )

    def close(self) -> None: ...


def encode(outputs: Pictures, indices: I64, dataset: Dataset) -> Answers:
    return Answers(outputs, np.arange(len(outputs) + 1) * SIDE * SIDE * 3)


def decode(data: bytes) -> Pictures:
    return np.frombuffer(data, np.uint8).reshape(SIDE, SIDE, 3)


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    """The distance grows with each wrong picture. What it wants beside the score is written beside the log."""
    if at.output:
        (at.output / "shown.txt").write_text("sample 0\n")
    wrong = sum(bool((decode(entry.data) != 3 * entry.index).any()) for entry in entries)
    return {"CLIP_SCORE": 31.75, "FID_SCORE": FID + wrong}


def prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


WHOLE = {"performance_sample_count_override": 0, "min_duration_ms": 0}
BENCHMARK = Benchmark(
    name="wide",
    title="Large answers",
    model="stable-diffusion-xl",
    scenarios=(Scenario.SingleStream, Scenario.Server, Scenario.Offline),
    dataset="wide:Dataset",
    backends={"numpy": BackendSpec("wide:Backend", devices=("cpu", "cuda"), batch=2, spreads=True)},
    postprocess="wide",
    accuracy="wide",
    profiles={
        "mini": Profile(
            "captions, embedded",
            "wide:prepare",
            samples=COUNT,
            settings={
                Scenario.SingleStream: {"single_stream_expected_latency_ns": 1e6, **WHOLE, "min_query_count": 64},
                Scenario.Server: {"server_target_qps": 200.0, **WHOLE, "min_query_count": 470},
                Scenario.Offline: {"offline_expected_qps": 100.0, **WHOLE, "min_query_count": 48},
            },
        )
    },
)
