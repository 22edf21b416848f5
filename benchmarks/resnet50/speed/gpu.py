"""ResNet-50 on one GPU in 16 bits, from its kernels to a Server test: `python speed/gpu.py --data FOLDER`.

First whether the fused network computes what the plain one does in float32, and how fast each is with its pixels on the
GPU. Then the four scenarios with pixels in the host's memory, Server at rising rates until two are INVALID.
Random weights and generated images, made in FOLDER at the first run. About 4 minutes.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench_resnet50 import postprocess
from bench_resnet50.backend_pytorch import DTYPES, Backend
from bench_resnet50.backend_pytorch_gpu import Compiled, Network, choose, constants
from bench_resnet50.benchmark import BENCHMARK
from bench_resnet50.config import ResNetConfig
from bench_resnet50.dataset import Dataset
from bench_resnet50.model import ResNet, fold
from bench_resnet50.synthetic import prepare
from loadgen.contracts import BackendOptions
from loadgen.harness.serving.batching import BatchingSystem
from loadgen.results import Result
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings

GFLOP = 8.18  # an image's arithmetic
LATENCY_NS = 15_000_000


def networks(backend: Backend, dataset: Dataset) -> None:
    """The fused network and the compiled one beside the plain one in float32, on the same images."""
    config = ResNetConfig()
    state = torch.load(backend.options.model / "resnet50-19c8e357.pth", weights_only=True)
    plain = ResNet(config).eval().requires_grad_(False)
    plain.load_state_dict(state, strict=False)
    batch = dataset.gather(list(range(256)))
    images = torch.from_numpy(batch.images).cuda()
    mean, scale = constants(batch.variant, images.device)
    expected = plain.cuda()(((images - mean) * scale).permute(0, 3, 1, 2))
    fold(plain)
    model = plain.to(DTYPES[backend.options.dtype]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for network in (choose(model, config), Compiled(model, config.image)):
        for count in (1, 8, 32, 96, 256):
            logits, seconds = timed(network, images[:count], mean, scale)
            error = (logits - expected[:count]).norm() / expected[:count].norm()
            same = (logits.argmax(1) == expected[:count].argmax(1)).float().mean()
            print(
                f"{type(network).__name__} {count:4} images: {count / seconds:9,.0f}/s, "
                f"{count * GFLOP / seconds / 1e3:4.0f} TFLOP/s; error {error:.1e}, same class {same:.1%}",
                flush=True,
            )


def timed(network: Network, images: torch.Tensor, mean: Any, scale: Any) -> tuple[torch.Tensor, float]:
    """Logits in float32, and the median seconds of a batch: recorded, its pixels on the GPU."""
    buffer = network.buffer(len(images))

    def step() -> torch.Tensor:
        network.fill(buffer, images, mean, scale)
        return network(buffer).float()

    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.synchronize()
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = step()
    times = []
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return logits, statistics.median(times[5:])


def test(backend: Backend, dataset: Dataset, settings: TestSettings, wait_ms: float) -> Result:
    """One test of the load generator, as `python -m bench_resnet50 run` makes it."""
    batch = backend.options.max_batch
    system = BatchingSystem("gpu", [backend], dataset, postprocess.encode, max_batch=batch, max_wait_s=wait_ms / 1e3)
    result = run(system, dataset, settings)
    assert not result.errors, result.errors
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--expected", type=float, default=45_000, help="images a second in Offline")
    parser.add_argument("--rates", type=float, nargs="*", default=[25_000, 30_000, 35_000, 37_500, 40_000])
    parser.add_argument("--wait-ms", type=float, default=0)
    asked = parser.parse_args()
    print(torch.cuda.get_device_name(), torch.__version__)
    prepare(asked.data)
    extra = BENCHMARK.profiles["synthetic"].model_options
    options = BackendOptions(asked.data / "model", device="cuda", dtype=asked.dtype, max_batch=asked.batch, extra=extra)
    backend, dataset = Backend(options), Dataset(asked.data / "data")
    backend.load()
    dataset.load(range(dataset.total_count))
    with torch.inference_mode():
        networks(backend, dataset)
    length = {"min_duration_ms": int(asked.seconds * 1e3), "min_query_count": 1}
    expected = {"single_stream_expected_latency_ns": 3e5, "multi_stream_expected_latency_ns": 5e5}
    for scenario in (Scenario.SingleStream, Scenario.MultiStream):
        latencies(f"{scenario}", test(backend, dataset, TestSettings(scenario=scenario, **expected, **length), 0))
    offline = TestSettings(scenario=Scenario.Offline, offline_expected_qps=asked.expected, **length)
    result = test(backend, dataset, offline, 0)
    print(f"Offline {result.metrics['result_samples_per_second']:,.0f} images/s, {verdict(result)}", flush=True)
    server = TestSettings(scenario=Scenario.Server, server_target_latency_ns=LATENCY_NS, **length)
    failed = 0
    for rate in asked.rates:
        result = test(backend, dataset, replace(server, server_target_qps=rate), asked.wait_ms)
        latencies(f"Server {rate:,.0f}/s", result)
        failed += not result.valid
        if failed == 2:
            break


def latencies(what: str, result: Result) -> None:
    """Of samples; in MultiStream all 8 of a query count from when it was issued."""
    assert result.columns is not None
    p50, p90, p99 = np.percentile(result.columns.latencies_ns, [50, 90, 99]) / 1e6
    print(f"{what}: p50 {p50:.2f} ms, p90 {p90:.2f} ms, p99 {p99:.2f} ms, {verdict(result)}", flush=True)


def verdict(result: Result) -> str:
    return "VALID" if result.valid else f"INVALID ({'; '.join(result.reasons)})"


if __name__ == "__main__":
    main()
