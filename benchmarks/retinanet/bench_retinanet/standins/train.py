"""Trains the miniature: `python -m bench_retinanet train-mini --output weights.npz`.

A ResNeXt of 5 blocks and a pyramid of 32 channels: 0.4 M parameters. 4,000 steps of 32 drawn images, mirrored or not,
11 times through 12,000; focal loss for classes and L1 for boxes, as the reference was trained. About 5 minutes on an
H200 that others used too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench_retinanet.anchors import all_anchors
from bench_retinanet.config import ANCHORS, HEADS, RetinaNetConfig
from bench_retinanet.model import Level, RetinaNet
from bench_retinanet.preprocess import decode, resize_into
from bench_retinanet.standins import SIZES
from bench_retinanet.standins.generate import sample
from bench_retinanet.standins.miniature import WEIGHTS
from loadgen.harness.standins.training import Progress, train_and_write, words

CONFIG = RetinaNetConfig(
    layers=(1, 2, 1, 1), stem=12, inner=16, groups=4, channels=32, convolutions=2, anchor=8, **SIZES
)
_BATCH = 32
_SEED_STEP = 1000
"""Training seeds are far from those of the validation set."""
_OBJECTS = 24
"""Objects of an image that are trained on; no drawn image has more."""
_FOREGROUND, _BACKGROUND = 0.5, 0.4
"""Overlaps with an object from which on an anchor is for it, and below which it is for none; the reference's."""


class Drawn(NamedTuple):
    """Images that are trained on."""

    pixels: Tensor
    """uint8 [n, 3, side, side]"""
    boxes: Tensor
    """[n, _OBJECTS, 4]: left, top, right, bottom in pixels of the model's input; nothing where there is no object."""
    labels: Tensor
    """[n, _OBJECTS]; -1: no object."""


def _task(job: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], list[list[float]]]:
    data, (height, width), objects = sample(*job)
    side = SIZES["image"]
    image = np.empty((3, side, side), np.float32)
    resize_into(image, decode(data))
    scale = np.array([side / width, side / height] * 2)
    rows = []
    for found in objects:
        if not found.group:
            corners = [found.left, found.top, found.left + found.width, found.top + found.height]
            rows.append([*(np.array(corners) * scale).tolist(), float(found.label)])
    return np.round(image * 255).astype(np.uint8), rows


def images(seed: int, count: int, workers: int) -> Drawn:
    """Through JPEG files and preprocessing as the benchmark's own."""
    jobs = [(_SEED_STEP + seed, number) for number in range(count)]
    if workers < 2:
        made = [_task(job) for job in jobs]
    else:
        with get_context("spawn").Pool(workers) as pool:
            made = pool.map(_task, jobs, chunksize=16)
    table = torch.full((count, _OBJECTS, 5), -1.0)
    for row, (_, found) in zip(table, made, strict=True):
        row[:, :4] = 0
        if found:
            row[: len(found)] = torch.tensor(found)
    return Drawn(torch.from_numpy(np.stack([pixels for pixels, _ in made])), table[..., :4], table[..., 4].long())


def train(args: argparse.Namespace) -> dict[str, Any]:
    """The trained tensors by the official names. AdamW with one cycle of the learning rate."""
    drawn = Drawn(*(column.to(args.device) for column in images(args.seed, args.images, args.workers)))
    torch.manual_seed(args.seed)
    model = _started(CONFIG).to(args.device)
    anchors = torch.from_numpy(all_anchors(CONFIG)).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.rate, total_steps=args.steps, pct_start=0.1)
    progress = Progress(args.steps)
    for _, chosen in zip(range(args.steps), _batches(args.images, args.seed), strict=False):
        batch = _mirrored(Drawn(*(column[torch.from_numpy(chosen).to(args.device)] for column in drawn)))
        loss = _loss(model(batch.pixels / 255), batch, anchors)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        progress.step(loss.detach())
    state = model.eval().state_dict().items()
    return {name: _stored(value) for name, value in state if not name.endswith("num_batches_tracked")}


def _started(config: RetinaNetConfig) -> RetinaNet:
    """With the reference's first weights of the heads: every class has a probability of a hundredth."""
    model = RetinaNet(config)
    for name, last in HEADS.items():
        for layer in model.head[name].modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.03)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if name == "classification_head":
            nn.init.constant_(model.head[name].get_submodule(last).bias, -float(np.log(99)))  # type: ignore[arg-type]
    return model


def _stored(value: Tensor) -> npt.NDArray[Any]:
    """Kernels in 16 bits, which are half of the file."""
    array = value.cpu().numpy()
    return array.astype(np.float16) if array.ndim > 1 else array


def _batches(count: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Without end; each image once before any again."""
    rng = np.random.default_rng(seed)
    size = min(_BATCH, count)
    while True:
        yield from rng.permutation(count)[: count // size * size].reshape(-1, size)


def _mirrored(batch: Drawn) -> Drawn:
    """Half of the batches, left to right."""
    if torch.rand(()) < 0.5:
        return batch
    left, top, right, bottom = batch.boxes.unbind(2)
    side = batch.pixels.shape[-1]
    return Drawn(batch.pixels.flip(3), torch.stack([side - right, top, side - left, bottom], 2), batch.labels)


def _loss(levels: Sequence[Level], batch: Drawn, anchors: Tensor) -> Tensor:
    """Focal loss of all anchors but those between, and L1 of those that are for an object; each by their number."""
    logits = torch.cat([_rows(level.logits) for level in levels], dim=1)
    deltas = torch.cat([_rows(level.deltas) for level in levels], dim=1)
    overlaps = _overlaps(batch.boxes, anchors).masked_fill(batch.labels[:, :, None] < 0, -1)
    best, which = overlaps.max(dim=1)
    nearest = overlaps.amax(dim=2, keepdim=True)  # an object without a near anchor gets its nearest
    given = ((overlaps == nearest) & (nearest > 0)).any(dim=1)
    chosen = (best >= _FOREGROUND) | given
    counted = chosen | (best < _BACKGROUND)
    labels = batch.labels.gather(1, which)
    wanted = F.one_hot(labels.clamp(min=0), logits.shape[2]) * chosen[:, :, None]
    share = chosen.sum().clamp(min=1)
    classes = (_focal(logits, wanted.float()) * counted[:, :, None]).sum() / share
    targets = batch.boxes.gather(1, which[:, :, None].expand(-1, -1, 4))
    away = _encoded(targets[chosen], anchors.expand(len(targets), -1, -1)[chosen])
    return classes + (deltas[chosen] - away).abs().sum() / share


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, x.shape[1] // ANCHORS)


def _overlaps(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Intersection over union [n, objects, anchors]."""
    low = torch.maximum(boxes[:, :, None, :2], anchors[:, :2])
    high = torch.minimum(boxes[:, :, None, 2:], anchors[:, 2:])
    both = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(dim=-1) for x in (boxes, anchors)]
    return both / (areas[0][:, :, None] + areas[1] - both)


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """With the reference's alpha of 0.25 and gamma of 2."""
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    missed = (logits.sigmoid() - wanted).abs()
    return (0.25 * wanted + 0.75 * (1 - wanted)) * missed**2 * loss


def _encoded(boxes: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `detection.decoded`."""
    sides, wanted = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    centres, there = anchors[:, :2] + sides / 2, boxes[:, :2] + wanted / 2
    return torch.cat([(there - centres) / sides, (wanted / sides).log()], dim=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write, as the words of a command line say. Raises InputError for a device that is not there."""
    parser = words(__doc__, seed=1, steps=4_000)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw images")
    parser.add_argument("--rate", type=float, default=3e-3, help="greatest learning rate")
    train_and_write(parser, arguments, train, WEIGHTS)


if __name__ == "__main__":
    main()
