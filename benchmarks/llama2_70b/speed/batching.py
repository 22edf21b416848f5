"""Continuous batching beside one request at a time, both by our engine: `python speed/batching.py`.

A random Llama of 8 layers and width 512, prompts of 20 to 100 tokens and answers of 40, in FP32 on the same threads, in
alternating pairs. Processor time says more than the clock where others use the same cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench_llama2_70b.config import LlamaConfig, write_config
from bench_llama2_70b.dataset import Batch
from bench_llama2_70b.official import CONFIG
from bench_llama2_70b.pytorch.backend import Backend
from loadgen.contracts import BackendOptions

LLAMA = LlamaConfig(8192, 512, 1376, 8, 8, 4, 256)
ANSWER = 40


def answers(backend: Backend, prompts: list[Any]) -> list[list[int]]:
    """Requests are added as there is room."""
    made: list[list[int]] = [[] for _ in prompts]
    added = done = 0
    while done < len(prompts):
        new = min(backend.room(), len(prompts) - added)
        if new:
            backend.add(np.arange(added, added + new), Batch(prompts[added : added + new], np.full(new, ANSWER)))
            added += new
        tokens = backend.step(1.0)
        for row, request in enumerate(tokens.requests.tolist()):
            made[request] += tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        done += int(tokens.finished.sum())
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    prompts = [rng.integers(3, LLAMA.vocab_size, rng.integers(20, 101)) for _ in range(args.requests)]
    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder) / CONFIG, LLAMA)
        backends = []
        for batch in (1, args.batch):
            options = BackendOptions(Path(folder), threads=args.threads, max_batch=batch, extra={"seed": 1})
            backends.append(Backend(options))
            backends[-1].load()
    for pair in range(args.pairs):
        took, made = [], []
        for backend in backends:
            began = time.process_time()
            made.append(answers(backend, prompts))
            took.append(time.process_time() - began)
        same = sum(a == b for a, b in zip(*made, strict=True))
        rates = [args.requests * ANSWER / seconds for seconds in took]
        print(f"pair {pair + 1}: one at a time {rates[0]:.0f}, batched {rates[1]:.0f} tokens a second of", end=" ")
        print(f"processor time: {rates[1] / rates[0]:.2f}x; {same} of {args.requests} answers equal")


if __name__ == "__main__":
    main()
