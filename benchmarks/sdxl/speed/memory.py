"""Peak memory of an accuracy run and of its scoring, with answers of 1024 x 1024 pixels: `python speed/memory.py 300`.

The images are noise around the caption's number, made in no time; the log, its reading and both scorers' way through it
are real. Prints megabytes above what the process had before each part, and what all answers together have.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench_sdxl.accuracy import score
from bench_sdxl.dataset import Batch, Dataset
from bench_sdxl.official import CAPTIONS
from bench_sdxl.postprocess import encode
from bench_sdxl.standins.formats import write_captions
from bench_sdxl.standins.miniature import prepare
from loadgen.contracts import I64, Scoring
from loadgen.harness.scoring import entries
from loadgen.harness.serving import BatchingSystem, finished
from loadgen.harness.serving.bucketing import Batching
from loadgen.logs import LogSettings
from loadgen.run import run
from loadgen.settings import Mode, Scenario, TestSettings

SIDE = 1024


class Painter:
    """In the place of a backend: an image of noise for each prompt."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(1)

    def submit(self, batch: Batch) -> Future[Any]:
        return finished(self._rng.integers(0, 256, (len(batch.ids), SIDE, SIDE, 3), np.uint8))


class FullSize(Dataset):
    """The miniature's captions, with images of full size."""

    def load(self, indices: Sequence[int]) -> None:
        self.side = SIDE

    def costs(self, indices: I64) -> I64:
        return np.ones(len(indices), np.int64)


def measure(count: int, folder: Path) -> dict[str, float]:
    """MB above the start: after the run, and after the scoring; and MB of all answers."""
    prepare(folder)
    names = [f"a small red circle at the top left on a white background {number}" for number in range(count)]
    write_captions(folder / "data" / CAPTIONS, names, SIDE)
    dataset = FullSize(folder, count=count, feature_side=75)
    dataset.load(range(count))
    before = _peak_mb()
    system: Any = BatchingSystem("painter", [Painter()], dataset, encode, Batching(4, 0.0, None, "padded"))  # type: ignore[list-item]
    settings = TestSettings(scenario=Scenario.Offline, mode=Mode.AccuracyOnly)
    log = LogSettings(outdir=folder / "log")
    result = run(system, dataset, settings, log=log)
    assert result.valid, result.reasons
    ran = _peak_mb()
    values = score(
        entries(log.path("accuracy.json"), np.zeros(count, np.uint64)), dataset, Scoring(folder, output=folder / "log")
    )
    assert len(list((folder / "log" / "images").glob("*.png"))) == 10
    assert np.isfinite(list(values.values())).all()
    return {"run": ran - before, "scoring": _peak_mb() - before, "answers": count * SIDE * SIDE * 3 / 1e6}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(words: Sequence[str]) -> None:
    options = SimpleNamespace(count=int(words[0]) if words else 300)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.count, Path(folder))
    print(" ".join(f"{name} {value:.0f} MB" for name, value in found.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
