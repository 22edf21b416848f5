"""How long steps take in which all requests generate, and which kernels they spend it in: `python speed/steps.py`.

Random weights of the size that the folder's `config.json` says, as the `synthetic` profile leaves it. On a GPU:
`python speed/steps.py --data FOLDER --device cuda --dtype float8 --batch 16 64 256`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from bench_llama2_70b.config import read_config
from bench_llama2_70b.dataset import Batch
from bench_llama2_70b.official import CONFIG
from bench_llama2_70b.pytorch.backend import Backend
from loadgen.contracts import BackendOptions

STEPS, BUDGET = 16, 1024


def begin(backend: Backend, batch: int, context: int, vocabulary: int) -> int:
    """As many requests, until each has a token. Returns the tokens of all prompts."""
    prompts = list(np.random.default_rng(1).integers(3, vocabulary, (batch, context)))
    most = STEPS + 4 + 2 * batch * context // BUDGET  # the first goes on while the last prompt is computed
    backend.add(np.arange(batch), Batch(prompts, np.full(batch, most)))
    waiting = set(range(batch))
    while waiting:
        waiting -= set(backend.step(1.0).requests.tolist())
    return batch * context


def end(backend: Backend, batch: int) -> None:
    """Until all have ended."""
    left = batch
    while left:
        left -= int(backend.step(1.0).finished.sum())


# Twin of: benchmarks/gpt_j/speed/steps.py::table
def table(backend: Backend) -> str:
    """Of the kernels of a step."""
    activity = ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        backend.step(1.0)
    sort = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return str(seen.key_averages().table(sort_by=sort, row_limit=12, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="with model/config.json")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--context", type=int, default=430, help="tokens of each request")
    args = parser.parse_args()
    model = args.data / "model"
    extra = {"seed": 1, "longest": 2048, "step_tokens": BUDGET}
    backend = Backend(BackendOptions(model, (args.device,), args.dtype, max_batch=max(args.batch), extra=extra))
    began = time.perf_counter()
    backend.load()
    print(f"loaded in {time.perf_counter() - began:.1f} s", flush=True)
    for batch in args.batch:
        began = time.perf_counter()
        count = begin(backend, batch, args.context, read_config(model / CONFIG).vocab_size)
        filled = time.perf_counter()
        for _ in range(STEPS):
            backend.step(1.0)
        took = (time.perf_counter() - filled) / STEPS
        print(f"{batch} requests: prompts {count / (filled - began):.0f} tokens/s;", end=" ")
        print(f"a step {1e3 * took:.2f} ms, {batch / took:.0f} tokens/s", flush=True)
        if batch == max(args.batch):
            print(table(backend))
        end(backend, batch)
    backend.close()


if __name__ == "__main__":
    main()
