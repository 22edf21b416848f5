"""Offline on PyTorch beside the same model run one sample at a time, padded to 384: `python speed/offline.py`.

Alternating pairs in one process, same samples, threads and dtype. BERT-large with random weights on
generated questions as long as SQuAD's; made in --data at the first run (1.4 GB). 24 samples and 3 pairs take
about 5 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from bench_bert import postprocess
from bench_bert.backend_pytorch import Backend
from bench_bert.benchmark import BENCHMARK
from bench_bert.dataset import Dataset
from bench_bert.synthetic import prepare
from loadgen.contracts import BackendOptions
from loadgen.harness.serving.batching import BatchingSystem
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings

WIDTH = 384


@torch.inference_mode()
def one_by_one(backend: Backend, dataset: Dataset, indices: list[int]) -> float:
    """Samples a second of the padded loop: the model's other way in, which takes padding and a mask."""
    began = time.perf_counter()
    for index in indices:
        batch = dataset.gather([index]).padded_to(WIDTH)
        columns = (batch.input_ids, batch.input_mask, batch.segment_ids)
        start, end = backend.model(*(torch.from_numpy(column) for column in columns))
        postprocess.full_width(start.float().numpy(), end.float().numpy(), batch)
    return len(indices) / (time.perf_counter() - began)


def offline(backend: Backend, dataset: Dataset, settings: TestSettings, batch: int) -> float:
    """Samples a second of an Offline test, by the load generator's clock."""
    system = BatchingSystem("pytorch", [backend], dataset, postprocess.encode, max_batch=batch)
    result = run(system, dataset, settings)
    assert not result.errors, result.errors
    rate = result.metrics["result_samples_per_second"]
    assert isinstance(rate, float)
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    asked = parser.parse_args()
    prepare(asked.data)
    options = BENCHMARK.profiles["synthetic"].model_options
    backend = Backend(
        BackendOptions(asked.data / "model", dtype=asked.dtype, threads=os.cpu_count() or 1, extra=options)
    )
    backend.load()
    dataset = Dataset(asked.data / "data")
    settings = TestSettings(
        scenario=Scenario.Offline,
        min_duration_ms=0,
        min_query_count=asked.samples,
        performance_sample_count_override=asked.samples,
        qsl_rng_seed=1,
    )
    order: list[int] = []
    dataset.load = order.extend  # type: ignore[assignment, method-assign] # which samples the test loads
    ratios, padded_rates, ours = [], [], []
    for pair in range(asked.pairs + 1):  # the first warms up
        rate = offline(backend, dataset, settings, asked.batch)
        padded = one_by_one(backend, dataset, order[: asked.samples])
        if pair:
            ours.append(rate)
            padded_rates.append(padded)
            ratios.append(rate / padded)
            print(f"pair {pair}: {rate:.2f}/s, padded one by one {padded:.2f}/s, {ratios[-1]:.2f}x", flush=True)
    tokens = np.mean([dataset.cost(index) for index in order[: asked.samples]])
    print(f"{asked.dtype}, {os.cpu_count()} threads, {tokens:.0f} tokens on average, batches of {asked.batch}")
    median = statistics.median
    print(f"median {median(ours):.2f}/s, {median(ratios):.2f}x of {median(padded_rates):.2f}/s")


if __name__ == "__main__":
    main()
