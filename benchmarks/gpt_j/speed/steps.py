"""How long steps of beam searches take, and which kernels they spend it in: `python speed/steps.py`.

Random weights of the size that the folder's `config.json` says, as the `synthetic` profile leaves it. On a GPU:
`python speed/steps.py --data FOLDER --device cuda --dtype bfloat16 --batch 1 16 64 96`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from bench_gpt_j.config import read_config
from bench_gpt_j.dataset import Batch
from bench_gpt_j.official import CONFIG
from bench_gpt_j.pytorch.backend import Backend
from bench_gpt_j.pytorch.engine import BUDGET
from loadgen.contracts import BackendOptions

STEPS, MOST = 16, 60


def begin(backend: Backend, batch: int, context: int, vocabulary: int) -> float:
    """As many searches, until their prompts are computed. Returns the tokens of all prompts a second."""
    prompts = list(np.random.default_rng(1).integers(0, vocabulary - 1, (batch, context)))
    backend.add(np.arange(batch), Batch(prompts, np.full(batch, MOST)))
    began = time.perf_counter()
    for _ in range(-(-batch * context // BUDGET)):
        backend.step(1.0)
    return batch * context / (time.perf_counter() - began)


def end(backend: Backend, batch: int) -> None:
    """Until all have ended."""
    left = batch
    while left:
        left -= len(backend.step(1.0).requests)


def table(backend: Backend) -> str:
    """Of the kernels of a step."""
    activity = ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        backend.step(1.0)
    sort = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return str(seen.key_averages().table(sort_by=sort, row_limit=12, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="with model/config.json and its tokenizer")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--context", type=int, default=950, help="tokens of each prompt")
    args = parser.parse_args()
    model = args.data / "model"
    options = BackendOptions(model, (args.device,), args.dtype, max_batch=max(args.batch), extra={"seed": 1})
    backend = Backend(options)
    began = time.perf_counter()
    backend.load()
    print(f"loaded in {time.perf_counter() - began:.1f} s", flush=True)
    for batch in args.batch:
        rate = begin(backend, batch, args.context, read_config(model / CONFIG).vocab_size)
        began = time.perf_counter()
        for _ in range(STEPS):
            backend.step(1.0)
        took = (time.perf_counter() - began) / STEPS
        print(f"{batch} searches: prompts, and steps beside them, {rate:.0f} tokens/s;", end=" ")
        print(f"a step {1e3 * took:.2f} ms", flush=True)
        if batch == max(args.batch):
            print(table(backend))
        end(backend, batch)
    backend.close()


if __name__ == "__main__":
    main()
