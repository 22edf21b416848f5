"""Does a GPU draw the same batch alike each time? `python speed/twice.py FOLDER float8` says by how many bytes four
drawings in a row differ. FOLDER holds `model/` and `data/`, as of `synthesize --data FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from bench_sdxl.dataset import Dataset
from bench_sdxl.pytorch.backend import Backend
from loadgen.contracts import BackendOptions

BATCH = 8


def main(words: Sequence[str]) -> None:
    folder, dtype = Path(words[0]), words[1]
    backend = Backend(BackendOptions(folder / "model", devices=("cuda:0",), dtype=dtype, max_batch=BATCH))
    backend.load()
    batch = Dataset(folder).gather(np.arange(BATCH))
    print(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {dtype}")
    images = [future.result().astype(np.int16) for future in [backend.submit(batch) for _ in range(4)]]
    for number, (one, other) in enumerate(pairwise(images), 1):
        gap = np.abs(one - other)
        print(f"drawing {number} and {number + 1}: {np.count_nonzero(gap):,} bytes differ, by {gap.max()} at most")
    backend.close()


if __name__ == "__main__":
    main(sys.argv[1:])
