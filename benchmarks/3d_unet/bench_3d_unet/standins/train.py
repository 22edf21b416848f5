"""Trains the miniature: `python -m bench_3d_unet train-mini --output weights.npz`.

Four levels of 8 to 24 channels, 0.15 M parameters: 6,000 steps of 16 cubes of 32 voxels, cut from 200 generated
phantoms that went through the benchmark's own preprocessing. Under 3 minutes on an H200 that others use too; 1,200
steps of 4 cubes, ten minutes of one CPU core, come to a mean Dice of 0.83. Prints that of the miniature's cases.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_3d_unet.accuracy import dice
from bench_3d_unet.config import UNetConfig
from bench_3d_unet.model import UNet
from bench_3d_unet.official import CLASSES
from bench_3d_unet.preprocess import Volume, preprocess
from bench_3d_unet.sliding_window import F32, segment
from bench_3d_unet.standins import CASES, WINDOW
from bench_3d_unet.standins.generate import SEED, phantom
from bench_3d_unet.standins.miniature import WEIGHTS
from loadgen.harness.standins.training import Progress, train_and_write, words

CONFIG = UNetConfig(filters=(8, 16, 24, 24), window=WINDOW)
_SEED_STEP = 100_000
"""Training seeds are far from the one of the miniature's cases."""


def volumes(seed: int, count: int, workers: int) -> list[Volume]:
    """Preprocessed phantoms that are none of the miniature's."""
    jobs = [(_SEED_STEP + seed, number) for number in range(count)]
    if workers < 2:
        return [_task(job) for job in jobs]
    with get_context("spawn").Pool(workers) as pool:
        return pool.map(_task, jobs, chunksize=4)


def _task(job: tuple[int, int]) -> Volume:
    return preprocess(*phantom(*job), window=WINDOW)


class Cubes:
    """Draws cubes of volumes that lie on the device: every second one with a tumour or a kidney near its middle."""

    def __init__(self, found: Sequence[Volume], seed: int, device: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.images = [torch.from_numpy(volume.image).to(device) for volume in found]
        self.labels = [torch.from_numpy(volume.label).to(device) for volume in found]
        self.places = [[np.argwhere(volume.label[0] == kind) for kind in (1, 2)] for volume in found]

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Images [n, 1, W, W, W] and classes [n, W, W, W]; half of them mirrored from left to right."""
        images, labels = [], []
        for number in self.rng.integers(len(self.images), size=count).tolist():
            z, y, x = (slice(at, at + WINDOW) for at in self.corner(number))
            images.append(self.images[number][:, z, y, x])
            labels.append(self.labels[number][0, z, y, x])
        return torch.stack(images), torch.stack(labels).long()

    def corner(self, number: int) -> list[int]:
        room = np.array(self.images[number].shape[1:]) - WINDOW
        kind = self.rng.integers(4)  # 0, 1: anywhere
        places = self.places[number][kind - 2] if kind > 1 else np.empty((0, 3), np.int64)
        if not len(places):
            return list(map(int, self.rng.integers(room + 1)))
        middle = places[self.rng.integers(len(places))] + self.rng.integers(-10, 11, 3)
        return list(map(int, np.clip(middle - WINDOW // 2, 0, room)))


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, and 1 - Dice of kidney and tumour summed over the whole batch: one of a single cube would push a
    class that the cube does not have to zero."""
    hot = F.one_hot(labels, len(CLASSES)).movedim(-1, 1)[:, 1:]
    found = logits.softmax(1)[:, 1:]
    axes = (0, 2, 3, 4)
    dice = (2 * (found * hot).sum(axes) + 1) / (found.sum(axes) + hot.sum(axes) + 1)
    return F.cross_entropy(logits, labels) + 1 - dice.mean()


def train(args: argparse.Namespace) -> dict[str, Any]:
    """The trained tensors by their official names. AdamW with one cycle of the learning rate."""
    cubes = Cubes(volumes(args.seed, args.volumes, args.workers), args.seed, args.device)
    torch.manual_seed(args.seed)
    model = UNet(replace(CONFIG, filters=tuple(args.filters))).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=1e-4)

    def schedule(step: int) -> float:
        return min(1.0, (step + 1) / 100) * max(0.01, 0.5 * (1 + math.cos(math.pi * step / args.steps)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    progress = Progress(args.steps)
    for _ in range(args.steps):
        images, labels = cubes.draw(args.batch)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.device == "cuda"):
            logits = model(images)
        loss = loss_of(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        progress.step(loss.detach())
    print("Dice of the miniature's cases: kidney {:.4f}, tumor {:.4f}".format(*scores(model, args.device)), flush=True)
    return spread_channels({name: value.cpu().numpy() for name, value in model.state_dict().items()})


def spread_channels(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same function with channels of very different size, as large trained networks have them.

    In each block the scale and offset behind the first convolution are multiplied by a power of two between 1/4 and 4,
    which a ReLU lets through, and what the second convolution reads of that channel is divided by it: every answer
    stays the same to the last bit. Four bits now lose the small ones; eight do not. A miniature is too robust without
    this to show the difference.
    """
    rng = np.random.default_rng(0)
    spread = dict(tensors)
    for block in [name.removesuffix(".conv1.1.weight") for name in tensors if name.endswith(".conv1.1.weight")]:
        factor = (2.0 ** rng.integers(-2, 3, len(tensors[f"{block}.conv1.1.weight"]))).astype(np.float32)
        for kind in ("weight", "bias"):
            spread[f"{block}.conv1.1.{kind}"] = tensors[f"{block}.conv1.1.{kind}"] * factor
        spread[f"{block}.conv2.0.weight"] = tensors[f"{block}.conv2.0.weight"] / factor[:, None, None, None]
    return spread


@torch.inference_mode()
def scores(model: UNet, device: str) -> list[float]:
    """Mean Dice of kidney and tumour over the miniature's own cases."""

    def predict(windows: F32) -> F32:
        return np.asarray(model(torch.from_numpy(windows).to(device)).cpu())

    found = []
    for number in range(len(CASES)):
        image, label = preprocess(*phantom(SEED, number), window=WINDOW)
        (labels,) = segment([image[0]], predict, WINDOW, batch=8)
        found.append(dice(labels, label[0]))
    return list(map(float, np.mean(found, axis=0)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write, as the words of a command line say. Raises InputError as `train_and_write`."""
    parser = words(__doc__, seed=1, steps=6_000)
    parser.add_argument("--filters", type=int, nargs="+", default=list(CONFIG.filters), help="channels of each level")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2, help="processes that make phantoms")
    train_and_write(parser, arguments, train, WEIGHTS)


if __name__ == "__main__":
    main()
