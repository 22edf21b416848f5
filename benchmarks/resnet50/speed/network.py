"""ResNet-50's networks on one GPU in 16 bits, without the load generator: `python speed/network.py --data FOLDER`.

Whether the fused network computes what the plain one does in float32, and how fast it and the compiled one are with
pixels on the GPU. Random weights and generated images, made in FOLDER at the first run. A minute.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench_resnet50.benchmark import SYNTHETIC
from bench_resnet50.config import ResNetConfig
from bench_resnet50.dataset import Dataset
from bench_resnet50.model import ResNet, fold
from bench_resnet50.official import PYTORCH
from bench_resnet50.pytorch.gpu import Compiled, Network, choose, constants
from bench_resnet50.standins.synthetic import prepare, write_weights
from loadgen.harness.runtimes.torch import DTYPES, dtype_of, read_state_dict

COUNTS = (1, 8, 32, 96, 256)
REPEATS = 20


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
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return logits, statistics.median(times[5:])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    asked = parser.parse_args()
    print(torch.cuda.get_device_name(), torch.__version__)
    prepare(asked.data)
    weights = asked.data / "model" / PYTORCH
    if not weights.is_file():
        write_weights(weights)
    dataset = Dataset(asked.data)
    dataset.load(range(max(COUNTS)))
    images = torch.from_numpy(dataset.gather(np.arange(max(COUNTS))).images).cuda()
    mean, scale = constants(dataset.variant, images.device)
    config = ResNetConfig()
    plain = ResNet(config).eval().requires_grad_(False).cuda()
    plain.load_state_dict(read_state_dict(weights), strict=False)
    expected = plain(((images - mean) * scale).permute(0, 3, 1, 2))
    fold(plain)
    model: Any = plain.to(dtype_of(asked.dtype))
    model.to(memory_format=torch.channels_last)
    torch.backends.cudnn.benchmark = True
    for network in (choose(model, config), Compiled(model, config.image)):
        for count in COUNTS:
            logits, seconds = timed(network, images[:count], mean, scale)
            error = (logits - expected[:count]).norm() / expected[:count].norm()
            same = (logits.argmax(1) == expected[:count].argmax(1)).float().mean()
            rate = count / seconds
            print(
                f"{type(network).__name__} {count:4} images: {rate:9,.0f}/s, {rate * SYNTHETIC.gflop / 1e3:4.0f} "
                f"TFLOP/s; error {error:.1e}, same class {same:.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
