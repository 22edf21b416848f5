"""Trains the miniature: `python -m bench_resnet50 train-mini --output weights.npz`.

Stages of 1, 2, 1 and 1 bottlenecks, 8 channels: 0.14 M parameters. 9 epochs of 12,000 drawn images: some
4 minutes on 2 CPU cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from bench_resnet50.config import ResNetConfig
from bench_resnet50.dataset import Batch
from bench_resnet50.mini import SIZES
from bench_resnet50.mini.generate import sample
from bench_resnet50.model import ResNet
from bench_resnet50.preprocess import crop, normalised
from loadgen.contracts import InputError

CONFIG = ResNetConfig(layers=(1, 2, 1, 1), width=8, **SIZES)
_SEED_STEP = 1000
"""Training seeds are far from those of the validation set."""


def _task(job: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], int]:
    data, label = sample(*job)
    return crop(data, SIZES["image"], "tf"), label


def images(seed: int, count: int, workers: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Pixels [n, H, W, 3] and classes [n], through JPEG files and preprocessing as the benchmark's own."""
    jobs = [(_SEED_STEP + seed, number) for number in range(count)]
    if workers < 2:
        made = [_task(job) for job in jobs]
    else:
        with get_context("spawn").Pool(workers) as pool:
            made = pool.map(_task, jobs)
    pixels, labels = zip(*made, strict=True)
    return np.stack(pixels), np.array(labels)


def train(
    seed: int, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], epochs: int, device: str
) -> dict[str, Any]:
    """The trained tensors by torchvision's names. Batches of 64, SGD with one cycle of the learning rate."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = ResNet(CONFIG).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(pixels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps, pct_start=0.2)
    began = time.monotonic()
    for epoch in range(epochs):
        order = rng.permutation(len(pixels))[: len(pixels) // 64 * 64].reshape(-1, 64)
        losses = []
        for chosen in order:
            x = _input(_moved(pixels[chosen], rng), device)
            loss = cross_entropy(model(x), torch.from_numpy(labels[chosen]).to(device), label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        seconds = time.monotonic() - began
        print(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.3f}, {seconds:.0f} s", flush=True)
    state = model.eval().state_dict().items()
    return {name: value.cpu().numpy() for name, value in state if not name.endswith("num_batches_tracked")}


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


def _moved(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A batch's images, mirrored or not, and moved by up to 4 pixels: no pattern becomes another by it."""
    if rng.random() < 0.5:
        pixels = pixels[:, :, ::-1]
    moves = rng.integers(-4, 5, 2).tolist()
    return np.roll(pixels, moves, (1, 2))


def _input(pixels: npt.NDArray[np.uint8], device: str) -> torch.Tensor:
    return torch.from_numpy(normalised(Batch(pixels))).permute(0, 3, 1, 2).to(device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write, as the words of a command line say. Raises InputError for a device that is not there."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="train-mini", description=__doc__, formatter_class=raw)
    parser.add_argument("--output", type=Path, default=Path("weights.npz"))
    parser.add_argument("--device", choices=["cpu", "cuda"], help="a GPU if there is one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(arguments)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device cuda: PyTorch {torch.__version__} sees no GPU; use --device cpu")
    print(f"training on {torch.cuda.get_device_name() if device == 'cuda' else device}", flush=True)
    pixels, labels = images(args.seed, args.images, args.workers)
    tensors = train(args.seed, pixels, labels, args.epochs, device)
    np.savez(args.output, **spread_channels(tensors))
    print(f"written: {args.output}; bench_resnet50/mini/weights.npz is the file that the miniature uses")


if __name__ == "__main__":
    main()
