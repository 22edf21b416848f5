"""Trains the miniature: `python -m bench_resnet50 train-mini --output weights.npz`.

Stages of 1, 2, 1 and 1 bottlenecks, 8 channels: 0.14 M parameters. 1,683 steps of 64 images, 9 times through 12,000
drawn ones: some 4 minutes on 2 CPU cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from bench_resnet50.batch import Batch, Pixels, normalised
from bench_resnet50.config import ResNetConfig
from bench_resnet50.model import ResNet
from bench_resnet50.preprocess import crop
from bench_resnet50.standins import SIZES
from bench_resnet50.standins.generate import sample
from bench_resnet50.standins.miniature import WEIGHTS
from loadgen.contracts import I64
from loadgen.harness.standins.training import Progress, train_and_write, words

CONFIG = ResNetConfig(layers=(1, 2, 1, 1), width=8, **SIZES)
_BATCH = 64
_SEED_STEP = 1000
"""Training seeds are far from those of the validation set."""


def _task(job: tuple[int, int]) -> tuple[Pixels, int]:
    data, label = sample(*job)
    return crop(data, SIZES["image"], "tf"), label


def images(seed: int, count: int, workers: int) -> tuple[Pixels, I64]:
    """Pixels [n, H, W, 3] and classes [n], through JPEG files and preprocessing as the benchmark's own."""
    jobs = [(_SEED_STEP + seed, number) for number in range(count)]
    if workers < 2:
        made = [_task(job) for job in jobs]
    else:
        with get_context("spawn").Pool(workers) as pool:
            made = pool.map(_task, jobs)
    pixels, labels = zip(*made, strict=True)
    return np.stack(pixels), np.array(labels)


def train(args: argparse.Namespace) -> dict[str, Any]:
    """The trained tensors by torchvision's names. SGD with one cycle of the learning rate."""
    pixels, labels = images(args.seed, args.images, args.workers)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = ResNet(CONFIG).to(args.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=args.steps, pct_start=0.2)
    progress = Progress(args.steps)
    for _, chosen in zip(range(args.steps), _batches(len(pixels), rng), strict=False):
        x = torch.from_numpy(normalised(Batch(_moved(pixels[chosen], rng)))).permute(0, 3, 1, 2).to(args.device)
        loss = cross_entropy(model(x), torch.from_numpy(labels[chosen]).to(args.device), label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress.step(loss.detach())
    state = model.eval().state_dict().items()
    tensors = {name: value.cpu().numpy() for name, value in state if not name.endswith("num_batches_tracked")}
    return spread_channels(tensors)


def _batches(count: int, rng: np.random.Generator) -> Iterator[I64]:
    """Rows of images, in an order that is new each time that all were taken."""
    size = min(_BATCH, count)
    while True:
        yield from rng.permutation(count)[: count // size * size].reshape(-1, size)


def spread_channels(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same function with kernels of very different size, as large trained networks have them.

    Each output channel of a convolution is multiplied by a power of two from 1 to 64, which the batch normalisation
    behind it divides away. One int8 scale for a whole tensor now loses the small channels; one a channel does not.
    A miniature is too robust without this to show the difference.
    """
    rng = np.random.default_rng(0)
    spread = dict(tensors)
    for norm in [name.removesuffix(".running_var") for name in tensors if name.endswith("running_var")]:
        parts = norm.split(".")
        parts[-1] = parts[-1].replace("bn", "conv") if "bn" in parts[-1] else "0"  # downsample.1 follows downsample.0
        kernel = f"{'.'.join(parts)}.weight"
        factor = (2.0 ** rng.integers(0, 7, len(tensors[kernel]))).astype(np.float32)
        spread[kernel] = tensors[kernel] * factor[:, None, None, None]
        spread[f"{norm}.running_mean"] = tensors[f"{norm}.running_mean"] * factor
        spread[f"{norm}.running_var"] = tensors[f"{norm}.running_var"] * factor**2
    return spread


def _moved(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A batch's images, mirrored or not, and moved by up to 4 pixels: no pattern becomes another by it."""
    if rng.random() < 0.5:
        pixels = pixels[:, :, ::-1]
    moves = rng.integers(-4, 5, 2).tolist()
    return np.roll(pixels, moves, (1, 2))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write, as the words of a command line say. Raises InputError for a device that is not there."""
    parser = words(__doc__, seed=1, steps=1_683)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw images")
    train_and_write(parser, arguments, train, WEIGHTS)
